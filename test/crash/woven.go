package crash

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"skep/cache/tree"
	"skep/test/memdisk"
	"skep/test/model"
)

// Woven is a sequence of operations in which some happen within others. A Restart is a
// kill of the process.
type Woven struct {
	Passthrough bool
	Setup       []model.Op `json:"-"`
	Steps       []Step
}

// Step is an operation, and what happens within it. What has no moment does not happen.
// Either the operation changes nothing that can be seen, or nothing of what is within
// does: so there is one order of them that explains what each finds.
type Step struct {
	Op     model.Op
	Within []Inner `json:",omitempty"`
}

// Inner is an operation that begins at a moment of another, or when the one before it
// within the same has ended.
type Inner struct {
	Moment int
	Op     model.Op
}

func (s Step) String() string {
	var b strings.Builder
	fmt.Fprint(&b, s.Op)
	for _, in := range s.Within {
		fmt.Fprintf(&b, "\n\t\tat moment %d: %v", in.Moment, in.Op)
	}
	return b.String()
}

func (c Woven) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "passed through: %v", c.Passthrough)
	for i, s := range c.Steps {
		fmt.Fprintf(&b, "\n\t%d. %v", i+1, s)
	}
	return b.String()
}

// isQuiet reports whether an operation changes nothing that programs can see.
func isQuiet(op model.Op) bool {
	switch op.Kind {
	case model.Commit, model.Evict, model.Forget, model.Sync, model.SyncDir, model.Fsync, model.Fdatasync, model.FsyncOpen,
		model.Read, model.ReadFrom, model.Close:
		return true
	case model.Open:
		return op.Flags&(os.O_CREATE|os.O_TRUNC) == 0
	}
	return false
}

// weaver does a Woven.
type weaver struct {
	x    *Tester
	run  *drive
	from int // number of the disk's first event that counts

	mu         sync.Mutex // guards all below
	m          *model.Tree
	h          *History
	acts       []act // in the order of the history
	loud       int   // operations under way that change something
	committing int   // commits under way
	cut        bounds
	alone      map[tree.Ino]bool // files that the kernel wrote alone at the cut
	took       []takenAt
}

// bounds are two moments of the history between which something was; a last one of -1
// is the end of the step.
type bounds struct{ first, last int }

// takenAt is what a commit took, when that was cut, and the last moment of which it
// may be.
type takenAt struct {
	taken
	alone bool // the kernel wrote the file alone at the cut
	cut   bounds
	until int
}

// RunWoven does a case, compares all that is found with the model, and crashes at some
// moments.
func (x *Tester) RunWoven(from *Prepared, c Woven) error {
	x.Cases++
	run, err := from.open(c.Passthrough)
	if err != nil {
		return err
	}
	w := &weaver{x: x, m: model.New()}
	for _, op := range c.Setup {
		w.m.Do(op)
	}
	w.begin(run)
	defer func() { w.run.close() }()
	run.disk.Ignore(x.Without)
	for i, s := range c.Steps {
		if err := w.step(s); err != nil {
			return fmt.Errorf("step %d: %w", i+1, err)
		}
	}
	return w.end()
}

// begin goes on with a drive all of which is on the disk.
func (w *weaver) begin(run *drive) {
	w.run, w.h, w.acts, w.from = run, NewHistory(w.m.Listing()), nil, run.disk.Len()
	run.holders.took = func(t taken) {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.took = append(w.took, takenAt{t, w.alone[t.ino], w.cut, w.now()})
	}
}

// now is the last moment of which what is found now may be; w.mu is held.
func (w *weaver) now() int {
	if w.loud > 0 {
		return -1
	}
	return len(w.acts)
}

// do does an operation on the drive and on the model. One that changes something comes
// after all that is within it, any other before.
func (w *weaver) do(op model.Op) error {
	x := act{op: op, begun: w.run.disk.Len(), end: 1 << 62}
	at, quiet := 0, isQuiet(op)
	w.mu.Lock()
	if op.Kind == model.Commit {
		if w.committing++; w.committing == 1 {
			w.cut.first, w.alone = len(w.acts), w.run.Alone()
		}
	}
	if quiet {
		at = w.note(x)
	} else {
		w.loud++
	}
	w.mu.Unlock()
	got := w.run.Do(op)
	w.mu.Lock()
	defer w.mu.Unlock()
	if op.Kind == model.Commit {
		w.committing--
	}
	if !quiet {
		w.loud--
		at = w.note(x)
	}
	w.acts[at].end = w.run.disk.Len()
	want := w.acts[at].got
	if got.Errno != want.Errno || !bytes.Equal(got.Data, want.Data) {
		return fmt.Errorf("%v: %v, want %v: %w", op, got, want, model.DifferBytes(got.Data, want.Data))
	}
	return nil
}

// note adds an operation to the history, with what it should find, and returns its
// place; w.mu is held.
func (w *weaver) note(x act) int {
	file := w.m.FileOf(x.op)
	x.got = w.m.Do(x.op)
	w.h.Add(x.op, x.got, file, w.m)
	w.acts = append(w.acts, x)
	return len(w.acts) - 1
}

func (w *weaver) step(s Step) error {
	if s.Op.Kind == model.Restart {
		return w.restart()
	}
	var errs [2]error
	b := &beside{run: func(i int) { errs[1] = errors.Join(errs[1], w.do(s.Within[i].Op)) }}
	for _, in := range s.Within {
		b.at = append(b.at, in.Moment)
	}
	w.run.holders.watch(func(step string) {
		if step == "cut" {
			w.mu.Lock()
			w.cut.last = w.now()
			maps.Copy(w.alone, w.run.Alone())
			w.mu.Unlock()
		}
		b.step("", step)
	})
	if len(b.at) > 0 {
		w.run.disk.Watch(b.event)
	}
	_, err := b.during(func() { errs[0] = w.do(s.Op) })
	w.run.disk.Watch(nil)
	w.run.holders.watch(nil)
	if err = errors.Join(err, errs[0], errs[1], w.judge()); err != nil {
		return fmt.Errorf("%q: %w", b.where, err)
	}
	return w.clean()
}

// restart looks at crashes before it, kills the process, and begins another.
func (w *weaver) restart() error {
	if err := w.crash(w.run.disk.Len()); err != nil {
		return err
	}
	was := w.run
	run, err := open(was.disk.Kill(was.disk.Len()), was.holders, was.passthrough)
	if err != nil {
		return err
	}
	was.close() // on a disk that is not used any more
	w.m.CloseAll()
	w.begin(run)
	return w.run.Tree.Sweep(ctx)
}

// end closes all, has all taken, let go of and fetched again, and looks at crashes.
func (w *weaver) end() error {
	if err := w.promise(); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	n := w.run.disk.Len()
	l, err := w.run.List()
	if err == nil {
		err = model.Differ(l, w.m.Listing())
	}
	if err == nil {
		w.run.holders.took = nil
		err = w.run.renew(l)
	}
	if err == nil {
		err = w.settled(l)
	}
	if err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	return w.crash(n)
}

// promise closes all, and asks for flushes: what was taken for flushed, and is not, shows
// when the power goes then.
func (w *weaver) promise() error {
	var ops []model.Op
	for handle := 1; handle <= weaveHandles; handle++ {
		ops = append(ops, model.Op{Kind: model.Close, Handle: handle})
	}
	switch w.x.Rand.IntN(3) {
	case 0:
		ops = append(ops, model.Op{Kind: model.Sync})
	case 1:
		for _, path := range wovenPaths {
			ops = append(ops, model.Op{Kind: model.Fsync, Path: path})
		}
	}
	for _, op := range ops {
		if err := w.do(op); err != nil {
			return err
		}
	}
	return w.clean()
}

// settled says that a commit has left nothing behind, when all was at rest.
func (w *weaver) settled(l model.Listing) error {
	for path, e := range l {
		if !e.IsFile() {
			continue
		}
		s, err := w.run.Tree.ContentState(ctx, tree.Ino(e.File))
		if err != nil {
			return err
		}
		if s.Dirty {
			return fmt.Errorf("%q is dirty after a commit", path)
		}
	}
	return nil
}

// clean says whether what counts as clean is what the newest commit has.
func (w *weaver) clean() error {
	for path, e := range w.m.Listing() {
		if !e.IsFile() {
			continue
		}
		ino, err := w.run.Find(path)
		if err != nil {
			return err
		}
		s, err := w.run.Tree.ContentState(ctx, ino)
		if err != nil {
			return err
		}
		b, published := w.run.holders.get(s.Content)
		if s.Dirty || !published {
			continue
		}
		if err := model.DifferBytes(b, e.Content); err != nil {
			return fmt.Errorf("%q counts as clean: %w", path, err)
		}
	}
	return nil
}

// judge says whether each file that was taken in this step is as it was at the cut, or
// of one moment since if the kernel wrote it alone.
func (w *weaver) judge() error {
	all := w.took
	w.took = nil
	for _, t := range all {
		for _, last := range []*int{&t.cut.last, &t.until} {
			if *last < 0 {
				*last = len(w.acts)
			}
		}
		if err := w.judgeOne(t); err != nil {
			return fmt.Errorf("a commit took %q, cut at %v, until %d: %w", t.name, t.cut, t.until, err)
		}
	}
	return nil
}

func (w *weaver) judgeOne(t takenAt) error {
	if !t.alone {
		return exactly(t.content, w.versions(t, t.cut.first, t.cut.last))
	}
	all := w.versions(t, t.cut.first, t.until)
	if !t.moved {
		return exactly(t.content, all)
	}
	return w.inOrder(t)
}

// inOrder says whether what was taken of a file while it was written is what a power cut
// could have left: nothing that came after a flush is there without what came before.
func (w *weaver) inOrder(t takenAt) error {
	files := w.files(t)
	for i := t.cut.first + 1; i <= t.until; i++ {
		if !files[w.h.notes[i].flushed] || among(t.content, w.versions(t, t.cut.first, i)) == nil {
			continue
		}
		if err := among(t.content, w.versions(t, i, t.until)); err != nil {
			return fmt.Errorf("a part came after the flush %d, and another before: %w", i, err)
		}
	}
	return among(t.content, w.versions(t, t.cut.first, t.until))
}

// files are those that a file which was taken may be: the name tells, as of the cut.
func (w *weaver) files(t takenAt) map[uint64]bool {
	files := map[uint64]bool{}
	for i := t.cut.first; i <= t.cut.last; i++ {
		for path, e := range w.h.states[i] {
			if _, name := model.Split(path); name == t.name && e.IsFile() {
				files[e.File] = true
			}
		}
	}
	return files
}

// versions are the contents, from one moment to another, of a file that was taken.
func (w *weaver) versions(t takenAt, first, last int) (out [][]byte) {
	files := w.files(t)
	for i := first; i <= last; i++ {
		for file := range files {
			if e, there := find(w.h.states[i], file); there {
				out = append(out, e.Content)
			} else if b, open := w.h.gone[i][file]; open {
				out = append(out, b)
			}
		}
	}
	return out
}

// exactly says whether b is one of versions.
func exactly(b []byte, versions [][]byte) error {
	if slices.ContainsFunc(versions, func(v []byte) bool { return bytes.Equal(v, b) }) {
		return nil
	}
	if len(versions) == 0 {
		return errors.New("there was no such file")
	}
	return model.DifferBytes(b, versions[0])
}

// at is how far the operations were when the disk had p events: all up to k were
// acknowledged, but for those of which the history says nothing, and those up to last
// had begun.
func (w *weaver) at(p int) (h *History, k, last int) {
	o := order{acts: w.acts, h: w.h}
	h, _, k, last = o.at(p)
	return h, k, last
}

// crash crashes at some moments before event n, in one way each.
func (w *weaver) crash(n int) error {
	x, d := w.x, w.run.disk
	for i := range 3 {
		p := n
		if i > 0 {
			p = w.from + x.Rand.IntN(n-w.from+1)
		}
		h, k, last := w.at(p)
		x.Moments++
		x.seen = map[uint64]bool{}
		if i == 2 {
			if err := x.try(d.Kill(p), w.run, 1, func(l model.Listing) error { return h.killed(l, k, k, last) }); err != nil {
				return fmt.Errorf("killed at %d of %d, after %s: %w", k, last, lastOf(d, p), err)
			}
			continue
		}
		all := d.Losses(p, x.Rand, 2)
		loss := all[x.Rand.IntN(len(all))]
		if i == 0 {
			loss = memdisk.All
		}
		err := x.try(d.PowerLoss(p, loss), w.run, 0, func(l model.Listing) error {
			_, err := h.moment(l, k, k, last)
			return err
		})
		if err != nil {
			return fmt.Errorf("power lost at %d of %d, after %s, losing %s: %w", k, last, lastOf(d, p), loss.Name, err)
		}
	}
	return nil
}

// ShrinkWoven makes a case simpler as long as it fails.
func ShrinkWoven(c Woven, fails func(Woven) bool) Woven {
	try := func(simpler Woven) bool {
		if !fails(simpler) {
			return false
		}
		c = simpler
		return true
	}
	with := func(steps []Step) Woven { return Woven{c.Passthrough, c.Setup, steps} }
	fewest(c.Steps, func(fewer []Step) bool { return try(with(fewer)) })
	for i := range c.Steps {
		fewest(c.Steps[i].Within, func(fewer []Inner) bool {
			steps := slices.Clone(c.Steps)
			steps[i].Within = fewer
			return try(with(steps))
		})
	}
	fewest(c.Steps, func(fewer []Step) bool { return try(with(fewer)) })
	return c
}
