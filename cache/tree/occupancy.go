package tree

import (
	"context"
	"errors"
	"sync/atomic"

	"skep/cache/state"
)

// charge is what one inode adds to the tree's totals.
type charge struct {
	backing                      uint64 // the file that local is of
	bytes, here, local, unsynced int64
	small                        int64
}

// charge is what the row of an inode says that it takes here: all of it, and
// what is not to be let go of because no commit has taken it; in.mu is held.
func (in *inode) charge() charge {
	c := charge{backing: in.row.backing, local: in.row.local}
	if !in.orphan {
		c.bytes, c.here = in.row.taken(), in.row.here()
		if in.row.isSmall() {
			c.small = in.row.size
		}
	}
	if in.row.isFile() && in.row.has(flagDirty) && !in.orphan {
		c.unsynced = in.row.local
	}
	return c
}

// recharge brings the totals up to date with an inode whose row changed; in.mu
// is held.
func (t *Tree) recharge(in *inode) {
	now := in.charge()
	if now == in.charged {
		return
	}
	t.bytes64.Add(now.bytes - in.charged.bytes)
	t.here64.Add(now.here - in.charged.here)
	t.addLocal(in.charged, now)
	t.unsynced64.Add(now.unsynced - in.charged.unsynced)
	if in.passthrough && now.unsynced > 0 { // the kernel does not tell what it writes
		t.written64.Add(max(0, now.local-in.charged.local))
	}
	t.small64.Add(now.small - in.charged.small)
	if now.unsynced != in.charged.unsynced || now.small != in.charged.small {
		t.recharges.Add(1)
	}
	in.charged = now
}

// recountTries is how often a total is counted that changes meanwhile.
const recountTries = 3

// countAnew makes a total what count finds. What changes while that counts may be in
// it or not, so then it does not count, and count may end as soon as still says that
// it is in vain; if there is no end to changes, the total stays as it is.
func (t *Tree) countAnew(total *atomic.Int64, count func(still func() bool) (int64, error)) error {
	for range recountTries {
		before, changes := total.Load(), t.recharges.Load()
		still := func() bool { return t.recharges.Load() == changes }
		n, err := count(still)
		if err != nil {
			return err
		}
		if still() && total.CompareAndSwap(before, n) {
			return nil
		}
	}
	return nil
}

// page is what the local filesystem gives out room by.
const page = 4096

func wholePages(n int64) int64 { return (n + page - 1) / page * page }

// countEvery is after how many bytes written the room of a backing file is
// asked for anew; until then it is estimated.
const countEvery = 4 << 20

// occupied takes note that n bytes of the backing file were written: it takes
// as much more at most, and no more than its size; in.mu is held.
func (t *Tree) occupied(in *inode, n int64) {
	in.row.local = max(in.row.local, min(in.row.local+wholePages(n), wholePages(in.row.size)))
	in.soft = true
	if in.wrote += n; in.wrote >= countEvery {
		t.countLocal(in)
	}
	t.recharge(in)
}

// countLocal asks how much room the backing file takes; in.mu is held. Where it
// cannot be told, the estimate stays.
func (t *Tree) countLocal(in *inode) {
	if in.file == nil {
		return
	}
	st, err := in.file.Stat()
	if err != nil {
		return
	}
	in.row.local, in.wrote = st.Blocks*512, 0
	t.recharge(in)
}

// blocks is what stat tells of the room that an inode takes, in units of 512
// bytes: of content that is here, what it takes here, so that holes show; of
// content that is not, or only in part, what it took when it was; if it never
// was, its size. It is never 0 where there is content: programs would take it
// for a hole.
func (r *row) blocks() int64 {
	n := r.size
	switch {
	case r.has(flagBacking) && !r.has(flagPartial):
		n = r.local
	case r.room > 0:
		n = r.room
	}
	if n == 0 && !r.has(flagBacking) && r.size > 0 {
		n = r.size
	}
	return (n + 511) / 512
}

// taken is how many bytes of content an inode stands for in the drive: its size,
// holes apart as far as they are known. The target of a symbolic link lies with its
// name, and is no content.
func (r *row) taken() int64 {
	switch {
	case !r.isFile():
		return 0
	case r.has(flagBacking) && !r.has(flagPartial):
		return min(r.size, r.local)
	case r.room > 0:
		return min(r.size, r.room)
	}
	return r.size
}

// holes is how many bytes of a file's size taken leaves out.
func (r *row) holes() int64 {
	if !r.isFile() {
		return 0
	}
	return r.size - r.taken()
}

// here is how many of them are on this device.
func (r *row) here() int64 {
	switch {
	case r.has(flagInline):
		return r.size
	case r.has(flagBacking):
		return min(r.taken(), r.local)
	}
	return 0
}

// Local is how many bytes the backing files take on the disk, with the copies of some that
// a commit reads, and how many of them are of files that no commit has taken.
func (t *Tree) Local() (all, unsynced int64) {
	return max(0, t.local64.Load()) + t.copies64.Load(), max(0, t.unsynced64.Load())
}

// Waiting is about how many bytes the next commits have to take, in whole chunks: fresh,
// which came since the newest one began, with all of the files that the kernel writes alone
// now, and left, all of the files that it had to leave. It is no more than is unsynced, and
// may be much less: a file is that as a whole when one byte of it has changed.
func (t *Tree) Waiting() (fresh, left int64) {
	_, unsynced := t.Local()
	fresh = min(unsynced, t.passed64.Load()+max(0, t.written64.Load()-t.tried64.Load()))
	return fresh, min(unsynced-fresh, t.left64.Load())
}

// took takes note that the commit of a cut took all that was written by then, but what
// the entries hold that it left.
func (t *Tree) took(c *Cut, left map[Mark]bool) {
	sum := int64(0)
	for m := range left {
		if r, ok := t.markedFile(m); ok && r.has(flagDirty) {
			sum += r.local
		}
	}
	t.tried64.Store(c.written)
	t.left64.Store(sum)
}

// RecountUnsynced counts anew what no commit has taken. The total is kept all
// the time, but a crash can make it wrong.
func (t *Tree) RecountUnsynced() error {
	return t.countAnew(&t.unsynced64, func(still func() bool) (unsynced int64, err error) {
		err = t.eachMark(func(m Mark) bool {
			if r, ok := t.markedFile(m); ok && r.has(flagDirty) {
				unsynced += r.local
			}
			return still()
		})
		return unsynced, err
	})
}

var usageKey = singleKey("usage")

// saveUsage puts the totals that no count has into a row, for the next run.
func (t *Tree) saveUsage(b *state.Batch) {
	b.Put(usageKey, numbersRow(t.local64.Load(), t.unsynced64.Load(), t.small64.Load()))
}

func (t *Tree) readUsage() error {
	var local, unsynced, small int64
	_, err := readNumbers(t.st, usageKey, &local, &unsynced, &small)
	t.local64.Store(local)
	t.unsynced64.Store(unsynced)
	t.small64.Store(small)
	return err
}

// Room says what may be written to this disk, and kept on it. It is asked
// without locks.
type Room interface {
	// Write returns when n bytes may be written. It may make the caller wait,
	// and refuses with ErrNoSpace.
	Write(ctx context.Context, n int64) error
	// Again calls try, which takes n bytes, as the disk refused them although Write
	// had let them pass, or would: when there may be room for them, and until try does
	// not end with ErrNoSpace any more, or Write would refuse.
	Again(ctx context.Context, n int64, try func() error) error
	// Keep reports whether n bytes that are fetched may be kept.
	Keep(n int64) bool
	// PassThrough reports whether the kernel may be let write a new file alone.
	PassThrough() bool
}

// SetRoom makes r say what may be written and kept. It is called before
// anybody uses the tree; without it, all may be.
func (t *Tree) SetRoom(r Room) { t.room = r }

// patiently calls try, which adds rows, and again, as Room says, while there is no room
// for these. No locks are held.
func (t *Tree) patiently(ctx context.Context, try func() error) error {
	err := try()
	if errors.Is(err, ErrNoSpace) {
		err = t.room.Again(ctx, t.st.Step(), try)
	}
	return err
}

// boundless is the Room of a tree that was given none.
type boundless struct{}

func (boundless) Write(context.Context, int64) error               { return nil }
func (boundless) Again(context.Context, int64, func() error) error { return ErrNoSpace }
func (boundless) Keep(int64) bool                                  { return true }
func (boundless) PassThrough() bool                                { return true }

// CountPassed brings the totals up to date with the files that the kernel
// writes alone, and returns how many bytes these take.
func (t *Tree) CountPassed() (local int64) {
	for _, in := range t.inodes.writers() {
		in.mu.Lock()
		if in.passthrough && in.writers > 0 {
			t.refresh(in)
			local += in.row.local
		}
		in.mu.Unlock()
		t.release(in)
	}
	t.passed64.Store(local)
	return local
}
