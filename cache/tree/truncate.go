package tree

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/dag"
)

// truncate sets the size of a file.
func (t *Tree) truncate(ctx context.Context, in *inode, size int64) error {
	if size < 0 {
		return ErrInvalid
	}
	if size > MaxSize {
		return ErrFileTooBig
	}
	if size > 0 {
		if err := t.settleDoubt(ctx, in); err != nil {
			return err
		}
	}
	for {
		if err := t.keepHead(ctx, in, size); err != nil {
			return err
		}
		if err := t.preserveCut(ctx, in, size); err != nil {
			return err
		}
		if done, err := t.tryTruncate(in, size); done || err != nil {
			return err
		}
	}
}

// preserveCut is preserveAhead of what a truncation takes away; emptying a file takes
// its backing file as a whole away.
func (t *Tree) preserveCut(ctx context.Context, in *inode, size int64) error {
	in.mu.Lock()
	old, emptied := in.row.size, size == 0 && !(in.passthrough && in.opens > 0)
	in.mu.Unlock()
	if emptied {
		return nil
	}
	return t.preserveAhead(ctx, in, size, old)
}

// keepHead makes resident what a truncation leaves of a file, if that is so
// little that the next commit has it in the file's record, and not in blocks that
// can be fetched.
func (t *Tree) keepHead(ctx context.Context, in *inode, size int64) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.lacksHead(size) {
		return nil
	}
	err := t.fetch(ctx, in, 0, size)
	if errors.Is(err, errNotKept) {
		return t.keepThrough(ctx, in, size)
	}
	return err
}

// keepThrough makes the beginning of a file resident alone, though there is no room
// for the chunk that it is in; in.mu is held, but for the waits.
func (t *Tree) keepThrough(ctx context.Context, in *inode, size int64) error {
	f, head := in.row.committed(), make([]byte, size)
	_, err := t.readThrough(ctx, in, head, 0)
	if err == errBecameOther || !in.lacksHead(size) {
		return nil // the caller looks again
	}
	if err != nil {
		return err
	}
	in.mu.Unlock()
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	if in.movedFrom(f) || !in.lacksHead(size) {
		return nil
	}
	return t.keepChunk(in, 0, head)
}

// lacksHead reports whether a truncation has to wait for keepHead, as far as is
// known; in.mu is held.
func (in *inode) lacksHead(size int64) bool {
	r := &in.row
	if !r.isFile() || size == 0 || size > dag.MaxInline || size >= r.size || r.has(flagInline) {
		return false
	}
	return !r.has(flagBacking) || r.has(flagPartial) && (!in.ranged || len(in.valid.Missing(0, size)) > 0)
}

// tryTruncate truncates unless what is left was let go of meanwhile; then done is
// false.
func (t *Tree) tryTruncate(in *inode, size int64) (done bool, err error) {
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.lacksHead(size) {
		return false, nil
	}
	return true, t.truncateLocked(in, size)
}

// truncateLocked is truncate with the gate and in.mu held.
func (t *Tree) truncateLocked(in *inode, size int64) error {
	switch {
	case in.row.isDir():
		return ErrIsDir
	case !in.row.isFile():
		return ErrInvalid
	}
	if err := t.takeLeft(in); err != nil {
		return err
	}
	t.refresh(in)
	defer t.changed()
	switch {
	case size == 0 && !(in.passthrough && in.opens > 0):
		return t.empty(in)
	case in.row.has(flagInline) && size <= InlineMax:
		return t.truncateInline(in, size)
	}
	if !in.row.has(flagBacking) {
		if err := t.moveToBacking(in); err != nil {
			return err
		}
	}
	err := t.truncateBacking(in, size)
	if in.opens == 0 {
		t.settleClosed(in) // nobody will close it
	}
	return err
}

// empty makes a file empty. A backing file that it had is let go of, not
// overwritten: a commit may still read it, and power loss may bring it back.
func (t *Tree) empty(in *inode) error {
	if err := t.readRanges(in); err != nil {
		return err
	}
	if in.row.has(flagDirty) && in.row.dirtyEpoch < t.epoch.Load() {
		_ = t.freeze(in) // else the commit reads the backing file, which stays for it
	}
	c, e := t.lockedChange(in)
	r := c.written(e, 0)
	r.size = 0
	had := in.row.has(flagBacking)
	if in.row.has(flagInline) && in.row.size > 0 {
		c.b.Delete(key(tableInline, in.ino))
	}
	if had {
		c.b.Delete(backingKey(in.row.backing))
		c.dropRanges(in)
		c.b.Delete(key(tableWriting, in.ino))
	}
	number := in.row.backing
	r.backing, r.local, r.room = 0, 0, 0
	r.flags = r.flags&^(flagBacking|flagPartial) | flagInline
	if err := c.applyLocked(); err != nil {
		return err
	}
	in.inline = nil
	if had {
		if in.file != nil && (in.frozen == nil || in.frozen.file != in.file) {
			_ = in.file.Close()
		}
		in.file, in.writing, in.named, in.flushErr = nil, false, false, nil
		in.valid.Clear()
		in.dirty.Clear()
		t.removeBacking(number, in.seq)
	}
	in.whole, in.ranged, in.loose = true, true, noContent
	return nil
}

func (t *Tree) truncateInline(in *inode, size int64) error {
	b, err := t.inlineContent(in)
	if err != nil {
		return err
	}
	nb := make([]byte, size)
	copy(nb, b)
	c, e := t.lockedChange(in)
	r := c.written(e, size)
	r.size = size
	c.b.Put(key(tableInline, in.ino), nb)
	if err := c.applyLocked(); err != nil {
		return err
	}
	in.holdsLoose(in.seq)
	if in.orphan {
		in.inline = nb
	}
	return nil
}

func (t *Tree) truncateBacking(in *inode, size int64) error {
	if err := t.beginWriting(in); err != nil {
		return err
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	old := in.row.size
	if err := t.preserve(in, min(size, old), old); err != nil {
		return err
	}
	if err := t.recordHead(in, size); err != nil {
		return err
	}
	t.changedContent(in)
	in.order++
	if err := in.file.Truncate(size); err != nil {
		return noSpace(fmt.Errorf("%s: truncate: %w", t.Path(in.ino), err))
	}
	if size > old {
		in.valid.Add(old, size)
	} else {
		in.valid.Remove(size, 1<<62)
		in.dirty.Remove(size, 1<<62)
	}
	in.noteDirty(min(old, size), size) // and the last chunk of the committed version changes its length
	if size%dag.ChunkSize > 0 {
		in.noteDirty(size-1, size)
	}
	t.countLocal(in)
	err := t.noteTruncated(in, size)
	if err != nil {
		in.row.size, in.soft = size, true // so it is, and so the next start finds it
		t.leaveUntold(in)
	}
	return err
}

// recordHead has the tables say, safely, that what a truncation leaves is here, if that is as
// little as in keepHead, before the backing file is cut: should the process end, or the
// power go, in between, a commit would take it, and leave nothing to fetch it from. The
// gate and in.mu are held.
func (t *Tree) recordHead(in *inode, size int64) error {
	if !in.row.has(flagPartial) || in.orphan || size == 0 || size > dag.MaxInline || size >= in.row.size {
		return nil
	}
	if len(in.added.fetched.Within(0, size))+len(in.added.ranges.Within(0, size)) > 0 {
		if err := t.syncBacking(in); err != nil {
			return err
		}
		c, _ := t.lockedChange(in)
		c.putRanges(in)
		if err := c.applyLocked(); err != nil {
			return err
		}
	}
	return t.syncTo(t.changedIn(in))
}

// leaveUntold takes note that the backing file was changed, and that the tables could not
// be told: a flush or a cut tells them. The gate and in.mu are held.
func (t *Tree) leaveUntold(in *inode) {
	in.untold = in.row.has(flagPartial)
	t.inodes.writer(in)
}

// settleUntold tells the tables of what they could not be told, before a flush promises
// that it is safe.
func (t *Tree) settleUntold(in *inode) error {
	in.mu.Lock()
	short := in.untold
	in.mu.Unlock()
	if !short {
		return nil
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.untold || in.orphan {
		return nil
	}
	return t.noteTruncated(in, in.row.size)
}

// noteTruncated has the rows say that the backing file was truncated; the gate and
// in.mu are held.
func (t *Tree) noteTruncated(in *inode, size int64) error {
	partial := in.row.has(flagPartial) && !in.orphan
	if partial {
		if err := t.syncBacking(in); err != nil {
			return err
		}
	}
	c, e := t.lockedChange(in)
	c.written(e, size).size = size
	if partial {
		c.putRanges(in)
	}
	return c.applyLocked()
}
