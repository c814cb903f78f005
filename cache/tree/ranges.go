package tree

import (
	"encoding/binary"
	"errors"
	"fmt"

	"skep/cache/backing"
	"skep/cache/state"
	"skep/chunker/dag"
)

// A partial file's ranges row calls nothing valid that is not on the disk. What a
// write makes valid is kept, with its content, in a row of its own, so that a
// write need not be flushed: after a crash the rows are written to the backing
// file again, in order. Once a second, or when there is too much of them, the
// backing file is flushed, and the ranges row takes them in.
const (
	addedMax      = 256
	addedBytesMax = 1 << 20
	addedEach     = 64 << 10 // a larger write is flushed at once
)

// mostRanges bounds how many ranges of a partial file a write may leave: their row has to
// fit one record of the journal, with as many again of what a commit under way takes.
const mostRanges = 1 << 19

// errManyRanges says that a file is here in too many pieces to have another one. Unlike
// a full disk it concerns no other file.
var errManyRanges = fmt.Errorf("%w: the file is here in too many pieces", ErrNoSpace)

// mayScatter refuses a write of [from, to) that would leave more ranges than mostRanges; what
// is brought here makes them fewer. in.mu is held.
func (t *Tree) mayScatter(in *inode, from, to int64) error {
	if in.orphan || !in.row.has(flagPartial) {
		return nil
	}
	if err := t.readRanges(in); err != nil {
		return err
	}
	first, last := from/dag.ChunkSize*dag.ChunkSize, (to+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize
	if !in.hasMany() || touches(in.valid, from, to) && (in.whole || touches(in.dirty, first, last)) {
		return nil
	}
	t.closeGaps(in, from/dag.ChunkSize)
	return fmt.Errorf("%s: %w", t.Path(in.ino), errManyRanges)
}

// hasMany reports whether a file has as many ranges as it may; in.mu is held.
func (in *inode) hasMany() bool { return len(in.valid.List())+len(in.dirty.List()) >= mostRanges }

// touches reports whether to add [from, to) to a set makes it no more ranges.
func touches(s backing.Ranges, from, to int64) bool { return len(s.Within(from-1, to+1)) > 0 }

// addedWrites are the writes of a partial file that have rows of their own.
type addedWrites struct {
	n      uint64 // of rows
	bytes  int
	ranges backing.Ranges // that they wrote
	// fetched is what was brought here since the ranges row was written: no row
	// calls it valid yet. late is what of it came since it is being flushed.
	fetched, late backing.Ranges
}

// noteDirty takes note that [from, to) changed, in whole chunks, for a commit
// takes nothing less: writes all over a large file make few ranges. in.mu is held.
func (in *inode) noteDirty(from, to int64) {
	if !in.whole && from < to {
		in.dirty.Add(from/dag.ChunkSize*dag.ChunkSize, (to+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize)
	}
}

// newlyDirty is how many bytes of a file, in whole chunks, a write of [from, to) has a commit
// take that it would not take without, but for holes before it; in.mu is held.
func (in *inode) newlyDirty(from, to int64) (n int64) {
	size := max(in.row.size, to)
	first, last := from/dag.ChunkSize*dag.ChunkSize, min(size, (to+dag.ChunkSize-1)/dag.ChunkSize*dag.ChunkSize)
	switch {
	case in.whole:
		return to - from
	case in.dirty.Contains(first, last):
		return min(size-in.row.size, last-first)
	}
	for _, r := range in.dirty.Missing(first, last) {
		n += r.To - r.From
	}
	for _, r := range in.dirty.Within(in.row.size, size) { // the file grows there
		n += r.To - r.From
	}
	return n
}

// encodeRanges is the ranges row: valid, then dirty, then whether dirty is
// known at all. What a commit under way takes is still dirty: it may fail.
func (in *inode) encodeRanges(valid backing.Ranges) []byte {
	dirty, whole := in.unpublished()
	b := valid.Append(nil)
	b = dirty.Append(b)
	if whole {
		return append(b, 1)
	}
	return append(b, 0)
}

func addedKey(ino Ino, n uint64) []byte {
	return binary.BigEndian.AppendUint64(key(tableAdded, ino), n)
}

// putRanges writes the ranges row anew; the rows of what was added go.
func (c *change) putRanges(in *inode) {
	c.b.Put(c.ownKey(tableRanges, in.ino), in.encodeRanges(in.valid))
	c.dropAdded(in)
}

// putFlushed writes the ranges row anew, without what came since the flush of the
// backing file began that just ended. No write may have a row of its own.
func (c *change) putFlushed(in *inode) {
	valid := in.valid.Clone()
	for _, r := range in.added.late.List() {
		valid.Remove(r.From, r.To)
	}
	c.b.Put(c.ownKey(tableRanges, in.ino), in.encodeRanges(valid))
}

// putChanged writes the ranges row anew with what changed; of what is valid, with no more
// than it said before, or may say: what was fetched need not be on the disk, and writes
// have rows of their own.
func (c *change) putChanged(in *inode) {
	c.b.Put(c.ownKey(tableRanges, in.ino), in.encodeChanged())
}

func (in *inode) encodeChanged() []byte {
	valid := in.valid.Clone()
	for _, unrecorded := range []backing.Ranges{in.added.fetched, in.added.ranges} {
		for _, r := range unrecorded.List() {
			valid.Remove(r.From, r.To)
		}
	}
	return in.encodeRanges(valid)
}

// dropRanges removes all that is said about ranges.
func (c *change) dropRanges(in *inode) {
	c.b.Delete(c.ownKey(tableRanges, in.ino))
	c.dropAdded(in)
}

func (c *change) dropAdded(in *inode) {
	for n := range in.added.n {
		c.b.Delete(addedKey(in.ino, n))
	}
	c.folded = in
}

// noteValid takes note that p was written to a partial backing file at off, so
// that [from, off+len(p)) is valid; what is before off is a hole. Without p, the
// range was made a hole. in.mu is held.
func (t *Tree) noteValid(in *inode, p []byte, from, off, to int64) error {
	if in.orphan {
		in.valid.Add(from, to)
		return nil
	}
	a := &in.added
	again := len(a.ranges.Within(from, to)) > 0 // a row would bring back what was there before
	if in.valid.Contains(from, to) && !again && len(a.fetched.Within(from, to)) == 0 {
		return nil
	}
	if p == nil || len(p) > addedEach || a.n >= addedMax || a.bytes+len(p) > addedBytesMax {
		if err := t.syncBacking(in); err != nil {
			return err
		}
		old := in.valid.Clone()
		in.valid.Add(from, to)
		c, _ := t.lockedChange(in)
		c.putRanges(in)
		err := c.applyLocked()
		if err != nil {
			in.valid = old // as after a crash: the commit has what is there
		}
		return err
	}
	c, _ := t.lockedChange(in)
	c.value = append(c.uint64Value(uint64(from)), 0, 0, 0, 0, 0, 0, 0, 0)
	binary.BigEndian.PutUint64(c.value[8:], uint64(off))
	c.value = append(c.value, p...)
	c.b.Put(addedKey(in.ino, a.n), c.value)
	if err := c.applyLocked(); err != nil {
		return err
	}
	a.n++
	a.bytes += len(p)
	a.ranges.Add(from, to)
	in.valid.Add(from, to)
	t.noteFetched(in) // so that the ranges row takes it in soon
	return nil
}

var errAdded = errors.New("malformed row of a write")

// decodeAdded is what the row of a write says: see noteValid.
func decodeAdded(v []byte) (p []byte, from, off int64, err error) {
	if len(v) < 16 {
		return nil, 0, 0, errAdded
	}
	from, off = int64(binary.BigEndian.Uint64(v)), int64(binary.BigEndian.Uint64(v[8:]))
	if from < 0 || off < from || off > MaxSize {
		return nil, 0, 0, errAdded
	}
	return v[16:], from, off, nil
}

// eachAdded calls fn for the writes of a file that have rows, in order.
func eachAdded(r state.Reader, ino Ino, fn func(p []byte, from, off int64) error) error {
	var bad error
	start := key(tableAdded, ino)
	err := r.Scan(start, state.PrefixEnd(start), func(_, v []byte) bool {
		p, from, off, err := decodeAdded(v)
		if err == nil {
			err = fn(p, from, off)
		}
		bad = err
		return err == nil
	})
	return errors.Join(err, bad)
}

// rewriteAdded writes to a backing file what the rows say was written to it,
// and flushes it.
func (t *Tree) rewriteAdded(in *inode) error {
	if in.added.n == 0 {
		return nil
	}
	f, err := t.files.Open(in.row.backing)
	if absent(err) {
		return nil // nothing of it is left
	}
	if err != nil {
		return err
	}
	defer f.Close()
	err = eachAdded(t.st, in.ino, func(p []byte, _, off int64) error {
		_, err := f.WriteAt(p, off)
		return err
	})
	if err != nil {
		return err
	}
	return errors.Join(f.Datasync(), t.files.SyncName(in.row.backing))
}

// readRanges brings the ranges into memory; in.mu is held. Without a row, a
// resident file that is dirty may have changed everywhere.
func (t *Tree) readRanges(in *inode) error {
	if in.ranged || in.orphan {
		in.ranged = true
		return nil
	}
	ok, err := readRangesOf(t.st, in)
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	if !ok {
		in.whole = in.row.has(flagDirty)
	}
	if !in.row.has(flagDirty) { // the row was not written anew when a commit took it
		in.dirty.Clear()
		in.whole = false
	}
	in.ranged = true
	in.addOwn()
	return nil
}

// addOwn makes valid what is behind the end of the committed version: no commit has it, so
// it is here, also where no row could say so; in.mu is held.
func (in *inode) addOwn() {
	if in.row.has(flagPartial) {
		in.valid.Add(in.row.contentSize, in.row.size)
	}
}

// readRangesOf reads what tables say of an inode's ranges, if they do.
func readRangesOf(r state.Reader, in *inode) (ok bool, err error) {
	b, ok, err := r.Get(key(tableRanges, in.ino))
	if !ok || err != nil {
		return false, err
	}
	valid, rest, err := backing.DecodeRanges(b)
	if err != nil {
		return false, err
	}
	dirty, rest, err := backing.DecodeRanges(rest)
	if err != nil || len(rest) != 1 {
		return false, fmt.Errorf("ranges row: %w", backing.ErrFormat)
	}
	in.valid, in.dirty, in.whole, in.added = valid, dirty, rest[0] == 1, addedWrites{}
	return true, eachAdded(r, in.ino, func(p []byte, from, off int64) error {
		in.added.n++
		in.added.bytes += len(p)
		in.added.ranges.Add(from, off+int64(len(p)))
		in.valid.Add(from, off+int64(len(p)))
		return nil
	})
}
