package crash

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"skep/test/memdisk"
	"skep/test/model"
)

// Struck is a sequence of operations during some of which the disk fails. A Restart ends
// the process in order, or by a kill if its name is not inOrder.
type Struck struct {
	Passthrough bool       `json:",omitzero"`
	Lean        bool       `json:",omitzero"` // what nobody uses leaves memory at once
	Setup       []model.Op `json:"-"`
	Blows       []Blow
}

// Blow is an operation, what the disk does to it, and, if it is a commit, what happens
// within that.
type Blow struct {
	Op     model.Op
	Ill    Ill    `json:",omitzero"`
	Within []Blow `json:",omitempty"`
	Moment int    `json:",omitzero"` // of the commit that it is within
}

// inOrder, as the name of a Restart, says that the process ends as it should.
const inOrder = "in order"

// Ill is what fails of what the disk is asked for.
type Ill struct {
	What  string
	After int // so many of them do not fail
	Times int // so many do; 0: all that follow
}

// ills are what can fail: where, what, and how.
var ills = map[string]struct {
	below string
	kinds []memdisk.Kind
	err   unix.Errno
}{
	"journal full":  {"/state/journal", []memdisk.Kind{memdisk.Write, memdisk.Resize, memdisk.Link}, unix.ENOSPC},
	"journal fails": {"/state/journal", []memdisk.Kind{memdisk.Write, memdisk.Resize, memdisk.Link}, unix.EIO},
	"full":          {"", []memdisk.Kind{memdisk.Write, memdisk.Resize, memdisk.Link}, unix.ENOSPC},
	"files full":    {"/files", []memdisk.Kind{memdisk.Write, memdisk.Resize, memdisk.Link}, unix.ENOSPC},
	"many open":     {"/files", []memdisk.Kind{memdisk.Open, memdisk.Link}, unix.EMFILE},
	"no write":      {"/files", []memdisk.Kind{memdisk.Write, memdisk.Resize, memdisk.Clear}, unix.EIO},
}

// fall has the disk fail so, and returns what failed of it before.
func (s *striker) fall(i Ill) (was func(memdisk.Event) error) {
	of, ok := ills[i.What]
	if !ok {
		return s.run.disk.Fail(nil)
	}
	n := 0
	return s.run.disk.Fail(func(e memdisk.Event) error {
		if !slices.Contains(of.kinds, e.Kind) || !e.Below(of.below) || e.Below("/state/index") {
			return nil
		}
		n++
		if n <= i.After || i.Times > 0 && n > i.After+i.Times {
			return nil
		}
		s.broken = s.broken || of.err == unix.EIO && of.below == "/state/journal"
		return of.err
	})
}

func (b Blow) String() string {
	var s strings.Builder
	fmt.Fprint(&s, b.Op)
	if b.Ill.What != "" {
		fmt.Fprintf(&s, " while %+v", b.Ill)
	}
	for _, in := range b.Within {
		fmt.Fprintf(&s, "\n\t\tat %d: %v", in.Moment, in)
	}
	return s.String()
}

func (c Struck) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "passed through: %v, lean: %v", c.Passthrough, c.Lean)
	for i, s := range c.Blows {
		fmt.Fprintf(&b, "\n\t%d. %v", i+1, s)
	}
	return b.String()
}

// striker does a Struck.
type striker struct {
	x   *Tester
	run *drive
	m   *model.Tree
	h   *History

	broken bool // the journal failed: it takes nothing more before the next start
}

// RunStruck does a case. What failed happened or did not, nothing else changes; what
// counts as clean is what the newest commit has; what was promised holds after each way to
// end; and what a commit takes then is all that is there.
func (x *Tester) RunStruck(from *Prepared, c Struck) error {
	x.Cases++
	run, err := openIn(from.disk.Kill(from.disk.Len()), from.holders.clone(), c.Passthrough, c.Lean)
	if err != nil {
		return err
	}
	s := &striker{x: x, run: run, m: model.New()}
	defer func() { s.run.close() }()
	for _, op := range c.Setup {
		s.m.Do(op)
	}
	s.h = NewHistory(s.m.Listing())
	for i, b := range c.Blows {
		if err := s.step(b); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	if err := s.end(); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	return nil
}

func (s *striker) step(b Blow) error {
	var err error
	switch b.Op.Kind {
	case model.Restart:
		s.fall(b.Ill)
		err = s.restart(b.Op.Name == inOrder)
	case model.Commit:
		err = s.commit(b)
	default:
		err = s.do(b)
	}
	if s.run.disk.Fail(nil); err != nil {
		return err
	}
	return s.clean()
}

// do does an operation that may fail, unless that is on a file without a name: what it left
// of that is not to be seen.
func (s *striker) do(b Blow) (err error) {
	if _, nameless := s.m.Nameless()[s.m.FileOf(b.Op)]; nameless {
		b.Ill = Ill{}
	}
	was := s.fall(b.Ill)
	s.m, err = s.x.faulty(s.run, s.m, s.h, b.Op)
	s.run.disk.Fail(was)
	return err
}

// commit does a commit, and what comes within it.
func (s *striker) commit(b Blow) error {
	var errs error
	moment, todo, busy := 0, b.Within, false
	s.run.holders.watch(func(string) {
		if busy {
			return
		}
		busy = true
		for len(todo) > 0 && todo[0].Moment <= moment {
			errs = errors.Join(errs, s.do(todo[0]))
			todo = todo[1:]
		}
		moment, busy = moment+1, false
	})
	s.fall(b.Ill)
	got := s.run.Do(b.Op)
	s.run.holders.watch(nil)
	if got.Errno != 0 && !isFault(got.Errno) {
		errs = errors.Join(errs, fmt.Errorf("%v: %v", b.Op, got))
	}
	return errs
}

// clean says whether what counts as clean is what the newest commit has.
func (s *striker) clean() error {
	for path, e := range s.m.Listing() {
		if !e.IsFile() {
			continue
		}
		ino, err := s.run.Find(path)
		if err != nil {
			return err
		}
		c, err := s.run.Tree.ContentState(ctx, ino)
		if err != nil {
			return err
		}
		b, published := s.run.holders.get(c.Content)
		if !c.Dirty && published && !bytes.Equal(b, e.Content) {
			return fmt.Errorf("%q counts as clean: %w", path, model.DifferBytes(b, e.Content))
		}
	}
	return nil
}

// restart ends the process, begins another, and looks at what that finds.
func (s *striker) restart(well bool) error {
	was, disk := s.run, s.run.disk
	if well {
		was.CloseAll()
		s.m.CloseAll()
		if was.Tree.SyncAll() == nil {
			s.h.Add(model.Op{Kind: model.Sync}, model.Result{}, 0, s.m)
		}
		was.Tree.Close()
		_ = was.st.Close()
		disk.Fail(nil)
	} else {
		disk.Fail(nil)
		disk = disk.Kill(disk.Len())
	}
	lost := was.disk.Lost()
	run, err := openIn(disk, was.holders, was.passthrough, was.lean)
	if err != nil {
		return fmt.Errorf("does not open: %w", err)
	}
	s.run, s.broken = run, false
	if !well {
		was.close() // on a disk that is not used any more
		s.m.CloseAll()
	}
	if err := run.Tree.Sweep(ctx); err != nil {
		return err
	}
	return s.compare(s.h.failed || lost)
}

// compare says whether what is there is what the model has; of contents, what may be left
// of them by what failed before this process began.
func (s *striker) compare(failed bool) error {
	l, err := s.run.peek()
	if err != nil {
		return err
	}
	if err = model.Differ(l, s.m.Listing()); err == nil || !failed {
		return err
	}
	if err := s.h.AfterFault(l); err != nil {
		return err
	}
	s.m.Take(l)
	s.h.states[len(s.h.states)-1] = s.m.Listing()
	return nil
}

// end looks at what is there after each way to end, and has it committed, let go of and
// fetched.
func (s *striker) end() error {
	if err := s.compare(false); err != nil {
		return err
	}
	for path, e := range s.m.Listing() {
		if e.IsFile() && s.x.Rand.IntN(3) == 0 {
			if err := s.step(Blow{Op: model.Op{Kind: model.Fsync, Path: path}}); err != nil {
				return err
			}
		}
	}
	d, k := s.run.disk, len(s.h.states)-1
	all := d.Losses(d.Len(), s.x.Rand, 1)
	for _, loss := range []memdisk.Loss{memdisk.All, all[s.x.Rand.IntN(len(all))]} {
		s.x.seen = map[uint64]bool{}
		if err := s.x.try(d.PowerLoss(d.Len(), loss), s.run, 0, func(l model.Listing) error { return s.h.AfterPowerLoss(l, k) }); err != nil {
			return fmt.Errorf("power lost, losing %s: %w", loss.Name, err)
		}
	}
	way := s.x.Rand.IntN(3)
	if s.broken {
		way = 2
	}
	if way > 0 {
		if err := s.restart(way == 1); err != nil {
			return fmt.Errorf("ended in order: %v: %w", way == 1, err)
		}
	} else {
		s.run.CloseAll()
	}
	l, err := s.run.peek()
	if err == nil {
		err = model.Differ(l, s.m.Listing())
	}
	if err == nil {
		err = s.run.renew(l)
	}
	if err != nil {
		return fmt.Errorf("ended in way %d: %w", way, err)
	}
	return nil
}

// keepingRoom is the room of a tree that was given none.
type keepingRoom struct{ fullRoom }

func (keepingRoom) Keep(int64) bool { return true }

// peek is List that keeps nothing of what it fetches.
func (d *drive) peek() (model.Listing, error) {
	d.Tree.SetRoom(fullRoom{})
	defer d.Tree.SetRoom(keepingRoom{})
	return d.List()
}

// isFault reports whether an error is one that the disk made.
func isFault(err unix.Errno) bool {
	return err == unix.EIO || err == unix.ENOSPC || err == unix.EMFILE
}

// Strike makes a case of so many steps.
func Strike(r *rand.Rand, setup []model.Op, steps int) Struck {
	g := &weave{r: r}
	g.outer, g.inner = g.some(wovenWeights), g.some(innerWeights)
	g.outer[model.Chmod] = 3 // tells the tables what memory has
	c := Struck{Passthrough: r.IntN(2) > 0, Lean: r.IntN(3) > 0, Setup: setup}
	what, left := "", 0
	for range steps {
		if left == 0 && r.IntN(4) == 0 {
			what, left = of(r, illNames...), 1+r.IntN(4)
		}
		b := g.blow(g.outer)
		if left > 0 {
			if left--; r.IntN(3) == 0 { // it can fail, and nobody hears of it
				b.Op = g.make(model.Close, g.outer)
			}
			b.Ill = g.ill(what)
		}
		if b.Op.Kind == model.Restart {
			g.open = [weaveHandles + 1]bool{}
			b.Op.Name = of(r, "", inOrder)
		}
		if b.Op.Kind == model.Commit {
			at := 0
			for range r.IntN(3) {
				in := g.blow(g.inner)
				at += r.IntN(6)
				if in.Moment = at; r.IntN(3) == 0 {
					in.Ill = g.ill(of(r, illNames...))
				}
				b.Within = append(b.Within, in)
			}
		}
		c.Blows = append(c.Blows, b)
	}
	return c
}

var illNames = []string{"journal full", "journal full", "journal full", "full", "files full", "many open", "many open", "no write", "journal fails"}

func (g *weave) ill(what string) Ill {
	i := Ill{What: what}
	if g.r.IntN(2) == 0 {
		i.After, i.Times = g.r.IntN(4), g.r.IntN(3)
	}
	return i
}

func (g *weave) blow(weights map[model.Kind]int) Blow {
	if g.path == "" || g.r.IntN(8) == 0 {
		g.path, g.hand = of(g.r, wovenPaths...), 1+g.r.IntN(weaveHandles)
	}
	b := Blow{Op: g.op(weights)}
	if b.Op.Kind == model.Chmod {
		b.Op.Mode = 0o600 + uint32(g.r.IntN(8))
	}
	return b
}

// ShrinkStruck makes a case simpler as long as it fails.
func ShrinkStruck(c Struck, fails func(Struck) bool) Struck {
	try := func(change func(*Struck)) bool {
		simpler := c
		simpler.Blows = slices.Clone(c.Blows)
		if change(&simpler); !fails(simpler) {
			return false
		}
		c = simpler
		return true
	}
	fewer := func() {
		fewest(c.Blows, func(blows []Blow) bool { return try(func(c *Struck) { c.Blows = blows }) })
	}
	fewer()
	for i := range c.Blows {
		if c.Blows[i].Ill != (Ill{}) && !try(func(c *Struck) { c.Blows[i].Ill = Ill{} }) {
			try(func(c *Struck) { c.Blows[i].Ill = Ill{What: c.Blows[i].Ill.What} })
		}
		fewest(c.Blows[i].Within, func(within []Blow) bool { return try(func(c *Struck) { c.Blows[i].Within = within }) })
	}
	if c.Lean {
		try(func(c *Struck) { c.Lean = false })
	}
	fewer()
	return c
}
