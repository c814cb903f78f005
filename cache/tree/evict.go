package tree

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/chunker/dag"
)

// Resident is a file whose content, or a part of it, is in a backing file.
type Resident struct {
	Ino   Ino
	Local int64     // bytes that the backing file takes
	Used  time.Time // when it was used last, as far as is known
	// Kept says that it may not be let go of now: no commit has taken it, it
	// is open, or pinned. Partly says that nevertheless some ranges of it may:
	// those that a commit has, of a file that is open through the daemon.
	Kept, Partly bool
}

// Residents looks at up to n backing files, from a number on, and calls fn for
// those whose inode is known. It returns where to go on; 0 when there are no
// more. Numbers rise as files come here, so that the order is that of their
// arrival.
func (t *Tree) Residents(from uint64, n int, fn func(Resident)) (next uint64, err error) {
	type named struct {
		ino    Ino
		number uint64
	}
	var found []named
	err = t.st.Scan(backingKey(from), []byte{tableBacking + 1}, func(k, v []byte) bool {
		if m, err := parseMark(k); err == nil {
			found = append(found, named{Ino(valueUint64(v)), uint64(m.Dir)})
		}
		return len(found) < n
	})
	if err != nil {
		return 0, err
	}
	for _, f := range found {
		if r, ok := t.resident(f.ino, f.number); ok {
			fn(r)
		}
		next = f.number + 1
	}
	if len(found) < n {
		next = 0
	}
	return next, nil
}

// resident describes the file that a backing file belongs to, without bringing
// its inode into memory.
func (t *Tree) resident(ino Ino, number uint64) (Resident, bool) {
	in, _ := t.inodes.find(ino)
	if in == nil {
		r, err := t.rowNow(ino)
		if err != nil || r.backing != number {
			return Resident{}, false
		}
		in = &inode{ino: ino, row: r}
	} else {
		defer t.release(in)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.backing != number || !in.row.has(flagBacking) {
		return Resident{}, false
	}
	r := Resident{Ino: ino, Local: in.row.local, Used: in.lastUse(), Kept: in.mustStay() != nil}
	r.Partly = r.Kept && t.mayGoPartly(in)
	if t.Pinned(ino) {
		r.Kept, r.Partly = true, false
	}
	return r, true
}

// lastUse is when an inode was read, written or opened last, as far as memory
// or its row tells; in.mu is held.
func (in *inode) lastUse() time.Time {
	u := in.used
	for _, t := range []Time{in.row.atime, in.row.mtime, in.row.ctime} {
		if newer(t, u) {
			u = t
		}
	}
	return time.Unix(u.Sec, int64(u.Nsec))
}

// Why content may not be let go of.
var (
	errOpen     = errors.New("the file is open")
	errUnsynced = errors.New("no commit has taken the content")
	errNothing  = errors.New("the content is not here")
)

// mustStay says why the content of a file may not be let go of; nil if it may.
// in.mu is held.
func (in *inode) mustStay() error {
	r := &in.row
	switch {
	case !r.isFile() || !r.has(flagBacking):
		return errNothing
	case in.opens > 0 || in.writing || in.frozen != nil || in.orphan || in.stale:
		return errOpen
	case r.has(flagDirty) || r.content.IsZero() || r.contentSize != r.size:
		return errUnsynced
	}
	return nil
}

// mayGoPartly reports whether ranges of a file that must stay may be let go of:
// it is read and written through the daemon, which knows what changed since the
// newest commit, and no commit is under way, which would make that the newest
// but one; in.mu is held.
func (t *Tree) mayGoPartly(in *inode) bool {
	r := &in.row
	return r.isFile() && r.has(flagBacking) && !r.content.IsZero() && !in.passthrough &&
		in.frozen == nil && in.before == nil && !in.orphan && !in.stale && t.currentCut() == nil
}

const (
	// evictStep is how much of a large file is let go of at a time.
	evictStep = 32 << 20
	// keptHead is how much of the beginning of a large file goes last: who
	// looks at a file again begins there.
	keptHead = dag.ChunkSize
)

// Evict lets go of content that can be had again: of a small file all of it, of
// a larger one, or one that is open, some ranges, the last ones first. It returns how many bytes come
// free by it, which they do with FinishEvictions; 0 if the file is in use, or
// its content is not safely out. From now on who reads it fetches it. With open,
// ranges of a file that is open, or partly unsynced, may go too.
func (t *Tree) Evict(ctx context.Context, ino Ino, open bool) (freed int64, err error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return 0, err
	}
	defer t.release(in)
	if t.Pinned(ino) {
		return 0, nil
	}
	in.mu.Lock()
	f, ranges, err := t.chooseRanges(in, open)
	in.mu.Unlock()
	if err != nil || len(ranges) == 0 {
		return 0, ignoreKept(err)
	}
	if t.opt.Held != nil {
		for _, r := range ranges {
			if err := t.opt.Held(ctx, f, r.From/dag.ChunkSize, (r.To+dag.ChunkSize-1)/dag.ChunkSize); err != nil {
				return 0, fmt.Errorf("%s: %w", t.Path(ino), err)
			}
		}
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if now, again, err := t.chooseRanges(in, open); err != nil || now != f || !sameRanges(again, ranges) {
		return 0, ignoreKept(err) // it was used meanwhile
	}
	return t.letGo(in, ranges)
}

// ignoreKept makes that a file is in use no error.
func ignoreKept(err error) error {
	if errors.Is(err, errOpen) || errors.Is(err, errUnsynced) || errors.Is(err, errNothing) {
		return nil
	}
	return err
}

func sameRanges(a, b []backing.Range) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// chooseRanges picks what to let go of next, and tells of which content; in.mu
// is held.
func (t *Tree) chooseRanges(in *inode, open bool) (dag.File, []backing.Range, error) {
	err := in.mustStay()
	partly := err != nil && open && t.mayGoPartly(in)
	if err != nil && !partly {
		return dag.File{}, nil, err
	}
	if err := t.readRanges(in); err != nil {
		return dag.File{}, nil, err
	}
	here := in.here()
	if partly {
		here = in.cleanHere()
	}
	return in.row.committed(), lastRanges(here.List(), evictStep, keptHead), nil
}

// cleanHere is the set of ranges that are here as the newest commit has them,
// in whole chunks; in.mu is held, and the ranges are in memory.
func (in *inode) cleanHere() backing.Ranges {
	var out backing.Ranges
	if in.whole {
		return out
	}
	end := min(in.row.size, in.row.contentSize) / dag.ChunkSize * dag.ChunkSize
	here := in.here()
	for _, r := range here.Within(0, end) {
		out.Add((r.From+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize, r.To/dag.ChunkSize*dag.ChunkSize)
	}
	for _, r := range in.dirty.List() {
		out.Remove(r.From/dag.ChunkSize*dag.ChunkSize, (r.To+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize)
	}
	return out
}

// here is the set of ranges of a backing file that hold content; in.mu is held,
// and the ranges are in memory.
func (in *inode) here() backing.Ranges {
	if in.row.has(flagPartial) {
		return in.valid.Clone()
	}
	var all backing.Ranges
	all.Add(0, in.row.size)
	return all
}

// lastRanges returns the last ranges of a list, whole chunks of some n bytes in
// all, and all of it if no more than head bytes would be left.
func lastRanges(list []backing.Range, n, head int64) []backing.Range {
	var out []backing.Range
	for i := len(list) - 1; i >= 0 && n > 0; i-- {
		r := list[i]
		if r.To-r.From > n {
			r.From = (r.To - n) / dag.ChunkSize * dag.ChunkSize
			r.From = max(r.From, list[i].From)
		}
		if i == 0 && r.From-list[0].From <= head {
			r.From = list[0].From
		}
		n -= r.To - r.From
		out = append(out, r)
	}
	return out
}

// letGo journals that ranges of a file are not here any more. The bytes go when
// that is on the disk; the gate and in.mu are held.
func (t *Tree) letGo(in *inode, ranges []backing.Range) (int64, error) {
	left := in.here()
	for _, r := range ranges {
		left.Remove(r.From, r.To)
	}
	if left.Empty() && in.opens == 0 && !in.row.has(flagDirty) {
		return t.letGoWhole(in)
	}
	if in.gained || in.added.n > 0 { // what stays was brought here, and the ranges row does not say so yet
		if err := t.syncBacking(in); err != nil {
			return 0, err
		}
		defer t.closeBacking(in)
	}
	freed := int64(0)
	for _, r := range ranges {
		freed += r.To - r.From
	}
	c, e := t.lockedChange(in)
	c.b.Freeing()
	r := e.local()
	freed = min(freed, r.local)
	if !r.has(flagPartial) {
		r.room = r.local
	}
	r.flags |= flagPartial
	r.local -= freed
	old := in.valid
	in.valid = left
	c.putRanges(in)
	if err := c.applyLocked(); err != nil {
		in.valid = old
		return 0, err
	}
	in.gained = false
	t.punchLater(in, ranges)
	return freed, nil
}

func (t *Tree) letGoWhole(in *inode) (int64, error) {
	c, e := t.lockedChange(in)
	c.b.Freeing()
	r := e.local()
	number, freed := r.backing, r.local
	if !r.has(flagPartial) {
		r.room = r.local
	}
	r.flags &^= flagBacking | flagPartial
	r.backing, r.local = 0, 0
	c.b.Delete(backingKey(number))
	c.dropRanges(in)
	if err := c.applyLocked(); err != nil {
		return 0, err
	}
	if in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
	in.valid.Clear()
	in.dirty.Clear()
	in.whole, in.ranged, in.loose, in.gained, in.ahead, in.lastChunk = false, true, 0, false, 0, 0
	t.removeMu.Lock()
	t.removals = append(t.removals, removal{number: number, seq: in.seq, unread: true})
	t.removeMu.Unlock()
	return freed, nil
}

// punch is ranges of a backing file that may go once the batch seq is on the
// disk, as far as they did not come back.
type punch struct {
	ino    Ino
	number uint64
	ranges []backing.Range
	seq    uint64
}

// punchLater has ranges go when the inode's last batch is on the disk; in.mu is held.
func (t *Tree) punchLater(in *inode, ranges []backing.Range) {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	t.punches = append(t.punches, punch{in.ino, in.row.backing, ranges, in.seq})
}

// FinishEvictions flushes what Evict journalled, and then lets go of the bytes.
func (t *Tree) FinishEvictions(ctx context.Context) error {
	t.removeMu.Lock()
	waiting := len(t.punches) > 0 || len(t.removals) > 0
	t.removeMu.Unlock()
	if !waiting {
		return nil
	}
	if err := t.Sync(); err != nil {
		return err
	}
	return t.runPunches(ctx)
}

// runPunches frees the ranges that may go by now. Those that cannot be freed wait for
// another time, and keep no others.
func (t *Tree) runPunches(ctx context.Context) error {
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
	var failed []punch
	var errs []error
	for _, p := range now {
		if err := t.runPunch(ctx, p); err != nil {
			failed, errs = append(failed, p), append(errs, err)
		}
	}
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	t.punches = append(t.punches, failed...)
	return errors.Join(errs...)
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
// and counts what the file takes then. While a commit reads the file, or a program does
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
	if in.row.has(flagPartial) {
		if in.frozen != nil || in.isMapped() {
			t.punchLater(in, ranges)
		} else if err := in.file.Unseen(func() error { return in.punch(ranges) }); err != nil {
			return fmt.Errorf("%s: free a range: %w", t.Path(in.ino), err)
		}
	}
	old := in.row.local
	t.countLocal(in)
	if in.row.local == old {
		return nil
	}
	c, e := t.lockedChange(in)
	e.local()
	return c.applyLocked()
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

// closeFile closes the backing file of an inode that nobody uses.
func (in *inode) closeFile() {
	if in.file != nil {
		_ = in.file.Close()
		in.file = nil
	}
}
