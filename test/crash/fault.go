package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"

	"golang.org/x/sys/unix"

	"skep/test/memdisk"
	"skep/test/model"
)

// Fault makes an event of the disk fail, the one with this number and, if it
// lasts, all after it that are like it.
type Fault struct {
	At    int
	Lasts bool
	Err   unix.Errno
}

func (f Fault) String() string {
	if f.Lasts {
		return fmt.Sprintf("%v from event %d on", f.Err, f.At)
	}
	return fmt.Sprintf("%v at event %d", f.Err, f.At)
}

// hits reports whether the event with number n fails. A full disk still
// deletes and flushes.
func (f Fault) hits(n int, e memdisk.Event) bool {
	if f.Err == unix.ENOSPC && e.Kind != memdisk.Write && e.Kind != memdisk.Resize && e.Kind != memdisk.Link {
		return false
	}
	return n == f.At || f.Lasts && n > f.At
}

// RunFault does a case while the disk fails, and lets it recover. What failed
// happened or did not, nothing else changes; what was promised afterwards, after
// another start too, holds. It reports whether the fault was met.
func (x *Tester) RunFault(c Case, f Fault) (met bool, err error) {
	d := memdisk.New()
	run, err := x.prepare(d, c)
	if err != nil {
		return false, err
	}
	defer run.close() // its memory is wanted
	m := model.New()
	for _, op := range c.Setup {
		m.Do(op)
	}
	h := NewHistory(m.Listing())
	n := 0
	d.Fail(func(e memdisk.Event) error {
		if e.Kind == memdisk.Open {
			return nil
		}
		if n++; f.hits(n-1, e) {
			met = true
			return f.Err
		}
		return nil
	})
	for i, op := range c.Ops {
		if m, err = x.faulty(run, m, h, op); err != nil {
			err = fmt.Errorf("operation %d: %w", i+1, err)
			break
		}
	}
	if d.Fail(nil); err != nil {
		return met, err
	}
	if err := x.afterFault(run, m, h, false); err != nil {
		return met, err
	}
	again, err := open(d, run.holders, run.passthrough) // as if it had been killed
	if err != nil {
		return met, fmt.Errorf("does not open: %w", err)
	}
	err = x.afterFault(again, m, h, true)
	again.close()
	return met, err
}

// faulty does an operation that may fail, and returns the model of what is there
// then.
func (x *Tester) faulty(run *drive, m *model.Tree, h *History, op model.Op) (*model.Tree, error) {
	before, file := m.Clone(), m.FileOf(op)
	want, got := m.Do(op), run.Do(op)
	switch {
	case got.Errno == want.Errno:
		h.Add(op, want, file, m)
		return m, nil
	case !isFault(got.Errno):
		return m, fmt.Errorf("%v: %v, want %v or a fault", op, got, want)
	}
	fail := run.disk.Fail(nil)
	l, err := run.peek()
	run.disk.Fail(fail)
	if err != nil {
		return m, fmt.Errorf("%v failed, and now it cannot be read: %w", op, err)
	}
	h.failed = true
	for _, now := range []*model.Tree{m, before} {
		if op.Kind == model.Open || op.Kind == model.Tmpfile {
			now.Do(model.Op{Kind: model.Close, Handle: op.Handle}) // there is none
		}
		if op.Kind == model.Map {
			now.Do(model.Op{Kind: model.Unmap, Handle: op.Handle})
		}
		if now.Adopt(l, before.Listing(), m.Listing()) {
			h.Add(op, got, file, now)
			return now, nil
		}
	}
	return m, fmt.Errorf("%v failed: neither as before (%w) nor as after (%w)", op,
		model.Differ(l, before.Listing()), model.Differ(l, m.Listing()))
}

// afterFault compares a tree whose disk works again with the model, makes what
// it can safe, and takes the power away.
func (x *Tester) afterFault(run *drive, m *model.Tree, h *History, again bool) error {
	when := "still running"
	if again {
		when = "started again"
	}
	l, err := run.List()
	if err == nil {
		err = model.Differ(l, m.Listing())
	}
	if err != nil && l != nil && again && (h.failed || run.disk.Lost()) {
		err = h.AfterFault(l)
		m.Take(l)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", when, err)
	}
	for path, e := range m.Listing() {
		op := model.Op{Kind: model.SyncDir, Path: path}
		if e.IsFile() {
			op.Kind = model.Fsync
		} else if e.Target != "" || e.Mode&unix.S_IFMT == unix.S_IFIFO {
			continue
		}
		h.Add(op, run.Do(op), m.FileOf(op), m)
	}
	k := len(h.states) - 1
	d := run.disk
	for _, loss := range d.Losses(d.Len(), x.Rand, x.Random) {
		x.seen = map[uint64]bool{}
		if err := x.try(d.PowerLoss(d.Len(), loss), run, 0, func(l model.Listing) error { return h.AfterPowerLoss(l, k) }); err != nil {
			return fmt.Errorf("%s, then the power went, losing %s: %w", when, loss.Name, err)
		}
	}
	return nil
}

// Faults runs a case with a fault at some of its events.
func (x *Tester) Faults(c Case, r *rand.Rand, tries int) error {
	for range tries {
		f := Fault{At: r.IntN(12 * len(c.Ops)), Lasts: r.IntN(3) == 0, Err: []unix.Errno{unix.EIO, unix.ENOSPC}[r.IntN(2)]}
		x.Cases++
		if _, err := x.RunFault(c, f); err != nil {
			return errors.Join(fmt.Errorf("%v", f), err)
		}
	}
	return nil
}
