package crash

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/evict"
	"skep/cache/space"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/test/memdisk"
	"skep/test/model"
)

// segmentSize makes journals that rotate within a case.
const segmentSize = 80 << 10

// Case is what is done before the crash.
type Case struct {
	Passthrough bool
	Setup, Ops  []model.Op
}

func (c Case) String() string {
	s := fmt.Sprintf("after %v: ", c.Setup[len(c.Setup)-1].Kind)
	if c.Passthrough {
		s = "passed through, " + s
	}
	for i, op := range c.Ops {
		s += fmt.Sprintf("%d. %v; ", i+1, op)
	}
	return s
}

// drive is a tree on a disk in memory.
type drive struct {
	model.Drive
	disk    *memdisk.Disk
	st      *state.Store
	holders *holders

	passthrough, lean bool
}

// fails, as the name of a commit, has it fail when all is stored.
const fails = "that fails"

// though, as the name of an eviction, lets what is open go, too.
const though = "though open"

// all, as the name of an eviction, has the cache make as much room as it can.
const all = "all of it"

// maintain does what programs do not see.
func maintain(t *tree.Tree, st *state.Store, h *holders, op model.Op) error {
	switch op.Kind {
	case model.Commit:
		err := h.commit(t, op.Name == fails, tree.Reading(op.Mode))
		if errors.Is(err, errFails) || errors.Is(err, tree.ErrBusy) {
			return nil
		}
		return err
	case model.Forget:
		return st.Forget(st.Seq() + 1)
	case model.Evict:
		if op.Name == all {
			return makeRoom(t)
		}
		ino, err := (&model.Drive{Tree: t}).Find(op.Path)
		if err != nil {
			return nil // there is nothing to let go of
		}
		_, small := t.EvictSmall(ctx, ino)
		_, err = t.Evict(ctx, ino, op.Name == though)
		return errors.Join(small, err, t.FinishEvictions(ctx))
	}
	return fmt.Errorf("cannot %v", op)
}

// makeRoom does what is done about a disk that others have filled.
func makeRoom(t *tree.Tree) error {
	content, _ := t.Local()
	return evict.New(evict.Config{Tree: t, Compact: t.CompactSmall, Urge: func() {}, Uplink: func() evict.Uplink { return evict.Uplink{} },
		Measure: func() (int64, space.Disk) { return 0, space.Disk{Size: 100 * (content + t.Small())} },
		Now:     time.Now, Log: slog.New(slog.DiscardHandler)}).Look(ctx)
}

// stateOptions are those of tables whose journal rotates within a case.
func stateOptions(d disk.FS) state.Options {
	return state.Options{Disk: d, Index: openIndex(d), SegmentSize: segmentSize, OverlaySize: 64 << 10}
}

var ctx = context.Background()

var errRebuilt = errors.New("the index was lost, and what it held with it")

func open(d *memdisk.Disk, h *holders, passthrough bool) (*drive, error) {
	return openIn(d, h, passthrough, false)
}

// openIn is open in much memory, or in so little that what nobody uses leaves it at once.
func openIn(d *memdisk.Disk, h *holders, passthrough, lean bool) (*drive, error) {
	idle := 0
	if lean {
		idle = 1
	}
	st, err := state.OpenWith("/state", stateOptions(d))
	if err != nil {
		return nil, err
	}
	if st.Rebuilt() {
		return nil, errors.Join(errRebuilt, st.Close())
	}
	files, err := backing.OpenOn(d, "/files")
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	t, err := tree.Open(tree.Options{State: st, Backing: files, Content: h, Device: 1, Passthrough: passthrough, Idle: idle, Now: d.Now})
	if err != nil {
		return nil, errors.Join(err, st.Close())
	}
	t.SetNoAtime(lean) // what is to be kept of access times stays
	drv := &drive{disk: d, st: st, holders: h, passthrough: passthrough, lean: lean}
	drv.Maintain = func(op model.Op) error { return maintain(t, st, h, op) }
	drv.Tree = t
	drv.Backing = func(fd int) model.Writer { return d.Descriptor(uintptr(fd)) }
	return drv, nil
}

func (d *drive) close() {
	d.CloseAll()
	d.Tree.Close()
	_ = d.st.Close()
}

// Tester tries cases.
type Tester struct {
	Rand *rand.Rand
	// Random is how many losses at random are tried at each moment, beside
	// those that are tried always.
	Random int
	// Sample, if it is set, has one moment of so many looked at, at random, and the last.
	Sample int
	// Without, if it is set, tells flushes that succeed and have no effect from
	// the end of the preparations on.
	Without func(memdisk.Event) bool
	// Renew has what is found after a crash committed, let go of and fetched: it
	// has to come back.
	Renew bool

	// What was done so far.
	Cases, Moments, States int

	seen map[uint64]bool
}

// Run does one case and crashes at every moment. It returns the first state
// that is not allowed.
func (x *Tester) Run(c Case) error {
	x.Cases++
	d := memdisk.New()
	run, err := x.prepare(d, c)
	if err != nil {
		return err
	}
	d.Ignore(x.Without)
	ends := []int{d.Len()}
	m := model.New()
	for _, op := range c.Setup {
		m.Do(op)
	}
	h := NewHistory(m.Listing())
	for i, op := range c.Ops {
		file := m.FileOf(op)
		want := m.Do(op)
		if got := run.Do(op); got.Errno != want.Errno {
			run.close()
			return fmt.Errorf("operation %d: %v, want %v", i+1, got, want)
		}
		h.Add(op, want, file, m)
		ends = append(ends, d.Len())
	}
	n := d.Len()
	run.close()
	return x.crashAll(run, c, h, ends, n)
}

func (x *Tester) add(o *Tester) {
	x.Cases += o.Cases
	x.Moments += o.Moments
	x.States += o.States
}

// Shrink leaves out operations as long as the case goes on failing.
func (x *Tester) Shrink(c Case, err error) (Case, error) {
	c.Ops = fewest(c.Ops, func(ops []model.Op) bool {
		serr := x.Run(Case{c.Passthrough, c.Setup, ops})
		if serr != nil {
			err = serr
		}
		return serr != nil
	})
	return c, err
}

// prepare makes what is there before the case, safely.
func (x *Tester) prepare(d *memdisk.Disk, c Case) (*drive, error) {
	run, err := open(d, newHolders(), c.Passthrough)
	if err != nil {
		return nil, err
	}
	for _, op := range c.Setup {
		if r := run.Do(op); r.Errno != 0 {
			return nil, fmt.Errorf("preparing: %v: %v", op, r)
		}
	}
	for _, op := range c.Setup {
		if op.Kind == model.Create {
			run.Do(model.Op{Kind: model.Fsync, Path: op.Path})
		}
	}
	err = run.Tree.Sync()
	d.Fold()
	return run, err
}

// crashAll crashes at every moment from the first end on, in every way.
func (x *Tester) crashAll(run *drive, c Case, h *History, ends []int, n int) error {
	k, d := 0, run.disk
	for p := ends[0]; p <= n; p++ {
		for k+1 < len(ends) && ends[k+1] <= p {
			k++
			x.seen = map[uint64]bool{}
		}
		if p == ends[0] {
			x.seen = map[uint64]bool{}
		}
		if p < n && x.Sample > 1 && x.Rand.IntN(x.Sample) != 0 {
			continue
		}
		x.Moments++
		if err := x.try(d.Kill(p), run, 1, func(l model.Listing) error { return h.AfterKill(l, k) }); err != nil {
			return fmt.Errorf("killed %s: %w", moment(d, p, k), err)
		}
		for _, loss := range d.Losses(p, x.Rand, x.Random) {
			if err := x.try(d.PowerLoss(p, loss), run, 0, func(l model.Listing) error { return h.AfterPowerLoss(l, k) }); err != nil {
				return fmt.Errorf("power lost %s, losing %s: %w", moment(d, p, k), loss.Name, err)
			}
		}
	}
	return nil
}

func moment(d *memdisk.Disk, p, k int) string {
	return fmt.Sprintf("after operation %d and %v", k, d.Log()[p-1])
}

// try opens the tree on a disk after a crash, twice, and judges what is there. If that is
// to be renewed, it is so at once, too, on another such disk: who looks at it before has
// fetched it.
func (x *Tester) try(d *memdisk.Disk, run *drive, kind uint64, judge func(model.Listing) error) error {
	if hash := d.Hash() ^ kind; x.seen[hash] {
		return nil
	} else { // each kind of crash is judged by itself
		x.seen[hash] = true
	}
	x.States++
	if x.Renew {
		if err := look(d.Kill(d.Len()), run, true, judge); err != nil {
			return fmt.Errorf("committed at once: %w", err)
		}
	}
	for _, when := range []string{"", "opened again: "} {
		if err := look(d, run, x.Renew && when != "", judge); err != nil {
			return fmt.Errorf("%s%w", when, err)
		}
	}
	return nil
}

// look opens the tree on a disk and judges what is there; if that is to be renewed, when
// it was committed, before anybody read it, and when it was let go of and fetched.
func look(d *memdisk.Disk, was *drive, renew bool, judge func(model.Listing) error) error {
	h := was.holders
	if renew {
		h = h.clone()
	}
	run, err := openIn(d, h, was.passthrough, was.lean)
	if err != nil {
		return fmt.Errorf("does not open: %w", err)
	}
	defer run.close()
	if err := run.Tree.Sweep(ctx); err != nil {
		return err
	}
	if renew {
		if r := run.Do(model.Op{Kind: model.Commit}); r.Errno != 0 {
			return fmt.Errorf("commit: %v", r)
		}
	}
	l, err := run.List()
	if err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	if err := judge(l); err != nil {
		return err
	}
	if err := h.check(&run.Drive, l); err != nil || !renew {
		return err
	}
	return run.renew(l)
}

// renew commits all, lets go of it, and fetches it.
func (d *drive) renew(l model.Listing) error {
	all := []model.Op{{Kind: model.Commit}}
	for path, e := range l {
		if e.IsFile() {
			all = append(all, model.Op{Kind: model.Evict, Path: path})
		}
	}
	for _, op := range all {
		if r := d.Do(op); r.Errno != 0 {
			return fmt.Errorf("%v: %v", op, r)
		}
	}
	again, err := d.List()
	if err == nil {
		err = model.Differ(again, l)
	}
	if err != nil {
		return fmt.Errorf("committed and fetched: %w", err)
	}
	return d.holders.check(&d.Drive, again)
}
