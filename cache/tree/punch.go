package tree

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
)

// punch is ranges of a backing file that may go once the batch seq is on the
// disk, as far as they did not come back.
type punch struct {
	ino    Ino
	number uint64
	ranges []backing.Range
	seq    uint64
	tries  int // that failed
}

// punchLater has ranges go when the inode's last batch is on the disk; in.mu is held.
func (t *Tree) punchLater(in *inode, ranges []backing.Range) {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	t.punches = append(t.punches, punch{ino: in.ino, number: in.row.backing, ranges: ranges, seq: in.seq})
}

// Going is how many bytes were let go of, count as content no more, and may still be on
// the disk; some are counted a moment before they are let go of.
func (t *Tree) Going() int64 { return t.going64.Load() }

// FinishEvictions flushes what Evict journalled, and then lets go of the bytes. Those that
// the disk does not free count as content again; that is no error.
func (t *Tree) FinishEvictions(ctx context.Context) error {
	defer t.going64.Store(0) // what cannot be freed is not going, however much room it takes
	t.removeMu.Lock()
	waiting := len(t.punches) > 0 || len(t.removals) > 0
	t.removeMu.Unlock()
	if !waiting {
		return nil
	}
	if err := t.Sync(); err != nil {
		return err
	}
	t.runPunches(ctx)
	return nil
}

// mostTries is how often it is tried to free a range.
const mostTries = 32

// runPunches frees the ranges that may go by now. One that cannot be freed keeps no
// others: if that may pass it is tried again, else it stays until its file goes as a whole.
func (t *Tree) runPunches(ctx context.Context) {
	t.removeMu.Lock()
	var keep, now []punch
	for _, p := range t.punches {
		if t.st.Durable(p.seq) {
			now = append(now, p)
		} else {
			keep = append(keep, p)
		}
	}
	t.punches = keep
	t.removeMu.Unlock()
	for _, p := range now {
		err := t.runPunch(ctx, p)
		if err == nil {
			continue
		}
		if p.tries == 0 {
			t.log.Warn("what was let go of still takes room", "err", err)
		}
		if p.tries++; p.tries < mostTries && (mayPass(err) || ctx.Err() != nil) {
			t.tryLater(p)
		}
	}
}

// mayPass reports whether what failed may go well another time.
func mayPass(err error) bool {
	for _, passing := range []error{unix.ENOSPC, unix.EDQUOT, unix.ENOMEM, unix.EMFILE, unix.ENFILE} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// tryLater has ranges go when all that was done until now is on the disk: they may have
// come back meanwhile, and have been let go of again.
func (t *Tree) tryLater(p punch) {
	p.seq = t.st.Seq()
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	t.punches = append(t.punches, p)
}

func (t *Tree) runPunch(ctx context.Context, p punch) error {
	in, err := t.acquire(ctx, p.ino)
	if err != nil {
		return ignoreStale(err) // its backing file goes as a whole
	}
	defer t.release(in)
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.backing != p.number || in.orphan {
		return nil
	}
	return t.freeMissing(in, p.ranges...)
}

// freeMissing makes holes of what is not here in some ranges of a backing file,
// and counts what the file takes then, also where that fails. While a commit reads the file, or a program does
// that the kernel let read it by itself in an earlier run, all of it stays. The gate and
// in.mu are held.
func (t *Tree) freeMissing(in *inode, ranges ...backing.Range) error {
	if err := t.readRanges(in); err != nil {
		return err
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	defer t.closeBacking(in)
	var failed error
	if in.row.has(flagPartial) {
		if in.frozen != nil || in.isMapped() {
			t.punchLater(in, ranges)
		} else if err := in.file.Unseen(func() error { return in.punch(ranges) }); err != nil {
			failed = fmt.Errorf("%s: free a range: %w", t.Path(in.ino), err)
		}
	}
	old := in.row.local
	t.countLocal(in)
	if in.row.local == old {
		return failed
	}
	c, e := t.lockedChange(in)
	c.b.Freeing()
	e.local()
	return errors.Join(failed, c.applyLocked())
}

// punch makes holes of what is not here in some ranges of the open backing file;
// in.mu is held.
func (in *inode) punch(ranges []backing.Range) error {
	for _, r := range ranges {
		for _, gone := range in.valid.Missing(r.From, min(r.To, in.row.size)) {
			if err := freeRange(in.file, gone.From, gone.To-gone.From); err != nil {
				return err
			}
		}
	}
	return nil
}

// freeRange makes a range of a file a hole.
func freeRange(f disk.File, from, n int64) error {
	return f.Allocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, from, n)
}
