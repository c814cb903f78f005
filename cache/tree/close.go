package tree

import "fmt"

// release ends the handle at once. The last one of an inode brings its row up to date.
func (f *File) release() {
	t, in := f.t, f.in
	t.gate.RLock()
	in.mu.Lock()
	t.refresh(in)
	f.touchPassed()
	in.opens--
	if f.writable {
		in.writers--
		if in.writers == 0 && in.passthrough && !in.orphan {
			t.changedContent(in) // a flush that is under way may have missed the last of it
		}
	}
	if f.mayStore() {
		in.storers--
	}
	switch {
	case in.opens == 0:
		t.settleClosed(in)
	case f.writable && in.writers == 0 && in.passthrough && !in.orphan:
		t.settleWritten(in)
	}
	if f.fresh && f.writable {
		t.burst.wrote(in.row.size, t.now())
	}
	if in.writers == 0 && (!in.soft || in.orphan) {
		t.inodes.noWriter(in)
	}
	forgotten := in.opens == 0 && in.forgotten
	in.mu.Unlock()
	t.gate.RUnlock()
	if forgotten { // nobody else will say so
		t.Forget(in.ino)
	}
	t.release(in)
}

// settleClosed brings the tables up to date with an inode that nobody has open
// any more; the gate and in.mu are held.
func (t *Tree) settleClosed(in *inode) {
	in.endAhead()
	if in.orphan {
		if in.file != nil {
			_ = in.file.Close()
			in.file = nil
		}
		in.passthrough, in.unheard, in.joined, in.grows = false, false, false, false
		return
	}
	c, e := t.lockedChange(in)
	defer c.recycle()
	if err := c.closeFile(e); err != nil {
		t.log.Warn("closing a file", "path", t.Path(in.ino), "err", err)
		t.stayWritten(in)
	}
	t.closeBacking(in)
	if in.passthrough {
		in.fine = nil // the kernel made what pieces it liked
	}
	in.passthrough, in.seenSet, in.unheard, in.joined, in.grows = false, false, false, false, false
}

// settleWritten takes note that a file which the kernel wrote alone has changed, now
// that it does not any more, though somebody still reads it: whatever commit took it
// before may have read it before the last write. The gate and in.mu are held.
func (t *Tree) settleWritten(in *inode) {
	c, e := t.lockedChange(in)
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	in.row, in.whole = *r, true
	if err := c.applyLocked(); err != nil {
		t.log.Warn("noting what was written", "path", t.Path(in.ino), "err", err)
		t.stayWritten(in)
	}
}

// stayWritten keeps in memory, for the next cut, that a file has changed: the tables
// could not be told. in.mu is held.
func (t *Tree) stayWritten(in *inode) {
	if !in.writing {
		return
	}
	if in.passthrough { // the kernel wrote it alone
		in.row.flags |= flagDirty
		in.row.dirtyEpoch = t.epoch.Load()
		in.whole = true
	}
	in.soft = true
	t.inodes.writer(in)
}

// closeBacking closes the backing file of an inode if nobody needs it open; whoever
// flushes it closes it afterwards, and hears first what became of the flush. in.mu is
// held.
func (t *Tree) closeBacking(in *inode) {
	if in.opens == 0 && in.frozen == nil && in.flush == nil {
		in.closeFile()
	}
}

// closeFile writes what a closed file's rows must say: size and times that were
// only in memory, and the ranges. A small file leaves its backing file for a
// row. That it was open for writing stays known until a flush: after power loss,
// the backing file need not be what the row says.
func (c *change) closeFile(e *edit) error {
	in, t := e.in, c.t
	if !in.writing && !in.soft {
		return nil
	}
	if in.passthrough && in.writing {
		e.row.flags |= flagDirty
		e.row.dirtyEpoch = c.epoch
		e.mark = true
	}
	inlined, err := c.inlineAgain(e)
	if err != nil {
		return err
	}
	if !inlined && in.row.has(flagBacking) {
		t.countLocal(in)
		e.row.local = in.row.local
	}
	switch {
	case inlined:
		c.b.Delete(key(tableWriting, in.ino))
	case in.gained && in.row.has(flagPartial): // the rest follows when what was fetched is on the disk
		c.putChanged(in)
	case in.row.has(flagPartial) || in.row.has(flagBacking) && !in.whole:
		c.putRanges(in)
	case in.row.has(flagBacking): // an older row would call only a part of it dirty
		c.dropRanges(in)
	}
	if e.mark {
		c.markInode(e)
	}
	c.putRow(e)
	seq, err := c.send()
	if err != nil {
		return noSpace(err)
	}
	if c.folded != nil {
		in.added, in.untold = addedWrites{}, false
	}
	old := in.row
	in.row, in.seq, in.soft, in.writing = e.row, seq, false, false
	in.counted = in.row.tally()
	if inlined {
		in.loose = 0 // it may have been flushed where it was
	}
	if e.mark {
		in.markedEpoch = c.epoch
	}
	t.recharge(in)
	if inlined {
		t.removeBacking(old.backing, seq)
		if in.file != nil {
			_ = in.file.Close()
			in.file = nil
		}
	}
	t.changed()
	return nil
}

// inlineAgain moves the content of a small, wholly resident file into a row.
func (c *change) inlineAgain(e *edit) (bool, error) {
	in := e.in
	if !e.row.has(flagBacking) || e.row.has(flagPartial) || e.row.size > InlineMax || in.frozen != nil || in.file == nil {
		return false, nil
	}
	b := make([]byte, e.row.size)
	if n, err := in.file.ReadAt(b, 0); n < len(b) {
		return false, fmt.Errorf("%d of %d bytes: %w", n, len(b), err)
	}
	if len(b) > 0 {
		c.b.Put(key(tableInline, in.ino), b)
	}
	c.b.Delete(backingKey(e.row.backing))
	c.dropRanges(in)
	e.row.flags = e.row.flags&^flagBacking | flagInline
	e.row.backing, e.row.local = 0, 0
	return true, nil
}
