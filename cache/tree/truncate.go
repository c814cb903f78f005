package tree

import (
	"context"
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
	if err := t.preserveCut(ctx, in, size); err != nil {
		return err
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	return t.truncateLocked(in, size)
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
	if err := t.tellEnd(in, size); err != nil {
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
	if err == nil && size < old && in.row.has(flagPartial) && !in.orphan {
		err = t.syncTo(in.seq) // see tellEnd
	}
	return err
}

// tellEnd has the tables say, safely, where a partial file ends that is about to grow up
// to some size, if they could not be told when it was cut: what it grows by would count
// after a crash as what the commit has there, which was cut off. The gate and in.mu are
// held.
func (t *Tree) tellEnd(in *inode, size int64) error {
	if !in.untold || in.orphan || size <= in.row.size {
		return nil
	}
	if err := t.noteTruncated(in, in.row.size); err != nil {
		return err
	}
	return t.syncTo(in.seq)
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
