package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"skep/chunker/dag"
)

// fetch makes [from, to) of a file resident. It lets go of in.mu while it
// waits for peers. A file that is not resident at all becomes inline if it is
// small, else it gets a partial backing file.
func (t *Tree) fetch(ctx context.Context, in *inode, from, to int64) error {
	for {
		if in.row.has(flagInline) {
			return nil
		}
		if err := t.readRanges(in); err != nil {
			return err
		}
		if in.row.has(flagBacking) && !in.row.has(flagPartial) {
			return nil
		}
		at := from
		if in.row.has(flagBacking) {
			in.addOwn()
			missing := in.valid.Missing(from, min(to, in.row.size))
			if len(missing) == 0 {
				return nil
			}
			at = missing[0].From
		}
		if err := t.fetchChunk(ctx, in, at/dag.ChunkSize); err != nil {
			return err
		}
	}
}

// committed is the content of a file in the newest commit that has it; none if
// it is in the file's record.
func (r *row) committed() dag.File {
	if r.content.IsZero() {
		return dag.File{}
	}
	return dag.File{Root: r.content, Size: r.contentSize}
}

// errNotKept says that content was fetched, but cannot be kept: the disk is full,
// or fails. It can be read all the same.
var errNotKept = errors.New("cannot keep what was fetched")

// fetchChunk brings one committed chunk here. in.mu is held, but for the wait; the gate is
// not.
func (t *Tree) fetchChunk(ctx context.Context, in *inode, i int64) error {
	f := in.row.committed()
	if t.content == nil || f.Root.IsZero() || i*dag.ChunkSize >= f.Size {
		return fmt.Errorf("%s: chunk %d of %d bytes: %w", t.Path(in.ino), i, f.Size, ErrCorrupt)
	}
	in.mu.Unlock()
	var kept error
	err := t.content.LendChunk(ctx, f, i, func(chunk []byte) {
		t.gate.RLock()
		defer t.gate.RUnlock()
		in.mu.Lock()
		defer in.mu.Unlock()
		if !in.movedFrom(f) {
			kept = t.keepFetched(in, f, i, chunk)
		}
	})
	in.mu.Lock()
	if in.movedFrom(f) && ctx.Err() == nil {
		return nil // the blocks may be given up by now: the caller looks again
	}
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	return kept
}

// movedFrom reports whether the content of f is not what is to be fetched any
// more: a commit took another, or all of it is here, for it was emptied and written
// anew or came by itself; in.mu is held.
func (in *inode) movedFrom(f dag.File) bool {
	return in.row.committed() != f || in.row.isHere()
}

// keepFetched stores a fetched chunk, or else remembers it for a while and returns
// errNotKept; the gate and in.mu are held.
func (t *Tree) keepFetched(in *inode, f dag.File, i int64, chunk []byte) error {
	err, at := ErrNoSpace, i*dag.ChunkSize
	if (!in.hasMany() || touches(in.valid, at, at+int64(len(chunk)))) && t.room.Keep(int64(len(chunk))) {
		err = t.keepChunk(in, i, chunk)
	}
	if err != nil {
		t.passing.add(f, i, bytes.Clone(chunk))
		return fmt.Errorf("%w: %w", errNotKept, err)
	}
	return nil
}

// keepChunk stores a fetched chunk, without touching what is valid already; the gate and
// in.mu are held.
func (t *Tree) keepChunk(in *inode, i int64, chunk []byte) error {
	if !in.row.has(flagBacking) {
		if in.row.size <= InlineMax && in.row.size == int64(len(chunk)) && !in.row.has(flagDirty) {
			return t.keepInline(in, bytes.Clone(chunk))
		}
		if err := t.moveToBacking(in); err != nil {
			return err
		}
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	keep := func() error { return t.keepRanges(in, i*dag.ChunkSize, chunk) }
	if in.row.has(flagDirty) {
		return in.file.Unseen(keep) // after a crash its times are those of the file
	}
	return keep()
}

// keepRanges writes what is not here of a chunk that begins at an offset.
func (t *Tree) keepRanges(in *inode, at int64, chunk []byte) error {
	for _, r := range in.valid.Missing(at, min(at+int64(len(chunk)), in.row.size)) {
		if err := t.keepRange(in, chunk[r.From-at:r.To-at], r.From); err != nil {
			return err
		}
	}
	return nil
}

// keepRange writes what was fetched into the backing file; zeros become a hole.
func (t *Tree) keepRange(in *inode, p []byte, at int64) error {
	if !isZero(p) || freeRange(in.file, at, int64(len(p))) != nil {
		if _, err := writePieces(in.file, p, at); err != nil {
			return noSpace(fmt.Errorf("%s: %w", t.Path(in.ino), err))
		}
		t.occupied(in, int64(len(p)))
	}
	in.valid.Add(at, at+int64(len(p)))
	in.added.fetched.Add(at, at+int64(len(p)))
	in.added.late.Add(at, at+int64(len(p)))
	in.unflush()
	t.came.Add(uint64(len(p)))
	t.noteFetched(in)
	return nil
}

// noteFetched takes note that the ranges of a file grew. The row that says so
// follows in the next lull, or at the next Sync, when what was fetched is on the
// disk; should the process end before, it is fetched again. in.mu is held.
func (t *Tree) noteFetched(in *inode) {
	if in.gained {
		return
	}
	in.gained = true
	t.enlistFetched(in)
}

// enlistFetched has the ranges of a file recorded: see noteFetched.
func (t *Tree) enlistFetched(in *inode) {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	if _, ok := t.fetched[in]; !ok {
		in.hold()
		t.fetched[in] = struct{}{}
	}
}

// unrecorded is of how many files something was fetched that is still to be
// recorded, and how much was fetched of all files ever, recorded or not.
func (t *Tree) unrecorded() (files int, came uint64) {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	return len(t.fetched), t.came.Load()
}

// recordFetched flushes what was fetched since it was called last, and writes
// the rows that say so.
func (t *Tree) recordFetched() {
	t.removeMu.Lock()
	todo := t.fetched
	t.fetched = map[*inode]struct{}{} // also if it was empty: nobody else may add to todo
	t.removeMu.Unlock()
	for in := range todo {
		if err := t.recordRanges(in); err != nil {
			t.log.Warn("what was fetched is not recorded yet", "path", t.Path(in.ino), "err", err)
			t.recordLater(in)
		}
		t.release(in)
	}
}

// recordLater has the ranges of a file recorded another time, unless that is in vain.
func (t *Tree) recordLater(in *inode) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.gained = true; in.isGaining() && in.flushErr == nil {
		t.enlistFetched(in)
	}
}

// recordRanges flushes what was fetched of a file, and notes that it is here. Who
// reads the file and fetches more of it waits for neither disk nor flush: that is
// left to the next time.
func (t *Tree) recordRanges(in *inode) error {
	if err := t.flushFetched(in); err != nil {
		return err
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.isGaining() {
		return nil
	}
	defer t.closeBacking(in)
	if in.added.n > 0 { // writes, which were not flushed with what was fetched
		if err := t.syncBacking(in); err != nil {
			return err
		}
		in.added.late.Clear()
	}
	in.gained = !in.added.late.Empty()
	if in.gained {
		t.enlistFetched(in)
	} else if in.valid.Contains(0, in.row.size) {
		return t.nowWhole(in)
	}
	return t.putGained(in)
}

// flushFetched flushes what was fetched of a file until now.
func (t *Tree) flushFetched(in *inode) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.isGaining() {
		return nil
	}
	in.added.late.Clear()
	return t.flushUnlocked(in)
}

// isGaining reports whether there are ranges of a file that have still to be
// recorded; in.mu is held.
func (in *inode) isGaining() bool {
	in.gained = in.gained && !in.orphan && !in.stale && in.row.has(flagPartial)
	return in.gained
}

// putGained records what was flushed; the gate and in.mu are held.
func (t *Tree) putGained(in *inode) error {
	c, e := t.lockedChange(in)
	e.local()
	if in.added.n > 0 {
		c.putRanges(in)
		return c.applyLocked()
	}
	c.putFlushed(in)
	if err := c.applyLocked(); err != nil {
		return err
	}
	in.added.fetched = in.added.late.Clone()
	return nil
}

var zeros [4096]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

func (t *Tree) keepInline(in *inode, content []byte) error {
	if in.orphan {
		in.inline = content
	}
	c, e := t.lockedChange(in)
	e.local().flags |= flagInline
	c.b.Put(key(tableInline, in.ino), content)
	c.listSmall(e)
	return c.applyLocked()
}

// nowWhole takes note that a partial file is wholly resident, and on the disk.
func (t *Tree) nowWhole(in *inode) error {
	t.countLocal(in)
	c, e := t.lockedChange(in)
	e.local().flags &^= flagPartial
	if in.row.has(flagDirty) {
		c.putRanges(in)
	} else {
		c.dropRanges(in)
	}
	return c.applyLocked()
}

// isStale reports whether an error says that an inode is gone.
func isStale(err error) bool { return errors.Is(err, ErrStale) }
