package tree

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	"skep/cache/backing"
)

// Sweep deletes backing files that no inode names: what a crash left between
// making one and journalling it, or between journalling its end and deleting
// it. What the others take it counts anew, and frees ranges that were let go of.
// It may run beside everything else, once after Open.
func (t *Tree) Sweep(ctx context.Context) error {
	limit := t.files.Last()
	t.sweep.begin()
	err := t.files.Each(func(n uint64) error {
		if err := ctx.Err(); err != nil || n > limit {
			return err // it was made since
		}
		owner, named, err := t.st.Get(backingKey(n))
		switch {
		case err != nil || t.awaitsRemoval(n):
			return err
		case !named && t.files.IsOld(n):
			// That nobody names it has to survive the power, before it goes.
			if err := t.syncTo(t.st.Seq()); err != nil {
				return err
			}
			return t.files.Remove(n)
		case !named:
			return nil // it is being made
		}
		takes, err := t.recount(ctx, Ino(valueUint64(owner)), n)
		t.sweep.found(n, takes)
		return err
	})
	if t.sweep.end(&t.local64, err == nil); err != nil {
		return err
	}
	return errors.Join(t.recountSmall(), t.RecountUnsynced())
}

// recount returns what a backing file takes. Where its inode's row says
// otherwise, it frees what was let go of, and sets the row right.
func (t *Tree) recount(ctx context.Context, ino Ino, n uint64) (takes int64, err error) {
	st, err := t.files.Stat(n)
	if absent(err) {
		return 0, nil // removed meanwhile
	}
	if err != nil {
		return 0, err
	}
	takes = st.Blocks * 512
	in, _ := t.inodes.find(ino)
	if in == nil {
		if r, err := t.rowNow(ino); err != nil || r.backing != n || r.local == takes {
			return takes, ignoreStale(err)
		}
		if in, err = t.acquire(ctx, ino); err != nil {
			return takes, ignoreStale(err)
		}
	}
	defer t.release(in)
	if err := t.syncUnknown(in); err != nil {
		return takes, err
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.backing != n || in.orphan || !t.st.Durable(in.seq) {
		return takes, nil // what was let go of just now goes when that is on the disk
	}
	if err := t.freeMissing(in, backing.Range{From: 0, To: in.row.size}); err != nil { // it keeps no others
		t.log.Warn("what was let go of still takes room", "err", err)
	}
	return in.row.local, nil
}

// syncUnknown flushes the journal if it is not known which change of a file that is partly
// here was the last one, as it has been out of memory since: it may not be on the disk.
func (t *Tree) syncUnknown(in *inode) error {
	in.mu.Lock()
	unknown := in.seq == 0 && in.row.has(flagPartial)
	in.mu.Unlock()
	if !unknown {
		return nil
	}
	return t.syncTo(t.st.Seq())
}

// sweep counts what all backing files take while some of them change. Of those
// that do, the count is what their inodes say in the end; of the others, what
// was found.
type sweep struct {
	on atomic.Bool

	mu      sync.Mutex // guards all below
	folder  int        // being swept
	seen    map[uint64]bool
	sum     int64            // of what was found of files that did not change
	changed map[uint64]int64 // what the others take now; nil when no sweep is under way
}

func (s *sweep) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.folder, s.sum, s.seen, s.changed = 0, 0, map[uint64]bool{}, map[uint64]int64{}
	s.on.Store(true)
}

func (s *sweep) end(total *atomic.Int64, whole bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range s.changed {
		s.sum += n
	}
	if whole {
		total.Store(s.sum)
	}
	s.on.Store(false)
	s.seen, s.changed = nil, nil
}

// found takes in what a file takes.
func (s *sweep) found(n uint64, takes int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if f := backing.Folder(n); f != s.folder {
		s.folder = f
		clear(s.seen)
	}
	s.seen[n] = true
	if _, changed := s.changed[n]; !changed {
		s.sum += takes
	}
}

// change takes note that a file takes something else now.
func (s *sweep) change(n uint64, old, now int64) {
	if n == 0 {
		return
	}
	f := backing.Folder(n)
	if _, again := s.changed[n]; !again && (f < s.folder || s.seen[n]) {
		s.sum -= old
	}
	s.changed[n] = now
}

// addLocal brings the total of what backing files take up to date with one.
func (t *Tree) addLocal(old, now charge) {
	if !t.sweep.on.Load() {
		t.local64.Add(now.local - old.local)
		return
	}
	s := &t.sweep
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed != nil {
		if old.backing != now.backing {
			s.change(old.backing, old.local, 0)
			s.change(now.backing, 0, now.local)
		} else if old.local != now.local {
			s.change(now.backing, old.local, now.local)
		}
	}
	t.local64.Add(now.local - old.local)
}

func ignoreStale(err error) error {
	if isStale(err) {
		return nil
	}
	return err
}

// awaitsRemoval reports whether a backing file is let go of already, and only
// kept until that is safe.
func (t *Tree) awaitsRemoval(n uint64) bool {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	for _, r := range t.removals {
		if r.number == n {
			return true
		}
	}
	return false
}
