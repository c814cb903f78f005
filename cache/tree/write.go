package tree

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"skep/chunker/dag"
)

// WriteAt writes p at off, or at the end for a handle opened with O_APPEND.
// killPriv clears set-user-id and set-group-id, as the kernel asks for it.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, killPriv bool) (int, error) {
	if !f.writable {
		return 0, ErrPerm
	}
	if len(p) == 0 {
		return 0, nil
	}
	n, err := f.writeAt(p, off, killPriv)
	if err == nil && f.sync {
		err = f.Sync(ctx, true)
	}
	f.t.changed()
	return n, err
}

func (f *File) writeAt(p []byte, off int64, killPriv bool) (int, error) {
	in, t := f.in, f.t
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if f.append {
		off = in.row.size
	}
	end := off + int64(len(p))
	if off < 0 || end > MaxSize {
		return 0, ErrFileTooBig
	}
	if killPriv {
		in.row.mode = killPrivOf(in)
	}
	if in.row.has(flagInline) && end <= InlineMax {
		return t.writeInline(in, p, off)
	}
	if !in.row.has(flagBacking) {
		if err := t.moveToBacking(in); err != nil {
			return 0, err
		}
	}
	return t.writeBacking(in, p, off)
}

func killPrivOf(in *inode) uint32 {
	m := killPriv(in.row.mode)
	if m != in.row.mode {
		in.markedEpoch, in.soft = 0, true // the record changes too
	}
	return m
}

// written makes the row of a file whose content changed up to end.
func (c *change) written(e *edit, end int64) *row {
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	r.mtime, r.ctime = c.now, c.now
	if end > r.size {
		c.bytes += end - r.size
		r.size = end
	}
	return r
}

func (t *Tree) writeInline(in *inode, p []byte, off int64) (int, error) {
	c, e := t.lockedChange(in)
	c.written(e, off+int64(len(p)))
	c.b.Patch(c.ownKey(tableInline, in.ino), int(off), p)
	if err := c.applyLocked(); err != nil {
		return 0, err
	}
	if in.orphan {
		in.inline = patched(in.inline, int(off), p)
	}
	return len(p), nil
}

func patched(b []byte, off int, p []byte) []byte {
	if need := off + len(p); len(b) < need {
		b = append(b, make([]byte, need-len(b))...)
	}
	copy(b[off:], p)
	return b
}

// moveToBacking gives an inode a backing file: one with its content if that is
// inline, an empty, partial one if its content is not here.
func (t *Tree) moveToBacking(in *inode) error {
	var content []byte
	if in.row.has(flagInline) {
		b, err := t.inlineContent(in)
		if err != nil {
			return err
		}
		content = b
	}
	c, e := t.lockedChange(in)
	if err := c.giveBacking(e, content); err != nil {
		return err
	}
	return c.applyLocked()
}

// giveBacking makes a backing file for an inode that has none.
func (c *change) giveBacking(e *edit, content []byte) error {
	in, t := e.in, c.t
	n, f, err := t.files.Create()
	if err != nil {
		return noSpace(err)
	}
	if len(content) > 0 {
		if _, err := f.WriteAt(content, 0); err != nil {
			_ = f.Close()
			_ = t.files.Remove(n)
			return noSpace(fmt.Errorf("backing file: %w", err))
		}
	}
	if err := f.Truncate(e.row.size); err != nil {
		_ = f.Close()
		_ = t.files.Remove(n)
		return noSpace(fmt.Errorf("backing file: %w", err))
	}
	r := e.local()
	wasInline := r.has(flagInline)
	r.backing = n
	r.flags = r.flags&^flagInline | flagBacking
	r.local = wholePages(int64(len(content)))
	if !wasInline && r.size > 0 {
		r.flags |= flagPartial
	}
	in.file = f
	in.valid.Clear()
	in.dirty.Clear()
	in.ranged, in.whole = true, wasInline
	if !in.orphan {
		c.b.Put(backingKey(n), uint64Value(uint64(in.ino)))
		if len(content) > 0 {
			c.b.Delete(key(tableInline, in.ino))
			if t.st.Durable(in.seq) {
				t.syncBeforeJournal(in, n) // what was safe in the journal stays safe
			}
		}
		if r.has(flagPartial) {
			c.b.Put(key(tableRanges, in.ino), in.encodeRanges())
		}
	}
	in.inline = nil
	return nil
}

func (t *Tree) writeBacking(in *inode, p []byte, off int64) (int, error) {
	if err := t.beginWriting(in); err != nil {
		return 0, err
	}
	if err := t.openBacking(in); err != nil {
		return 0, err
	}
	end := off + int64(len(p))
	if err := t.preserve(in, off, end); err != nil {
		return 0, err
	}
	n, err := in.file.WriteAt(p, off)
	if n > 0 {
		if nerr := t.noteWrite(in, off, off+int64(n)); nerr != nil {
			return 0, nerr
		}
	}
	if err != nil {
		return n, noSpace(fmt.Errorf("%s: %w", t.Path(in.ino), err))
	}
	return n, nil
}

// noteWrite takes note that [from, to) of the backing file was written. The
// row follows when the file is closed, unless what is here has to be known
// after a crash.
func (t *Tree) noteWrite(in *inode, from, to int64) error {
	if !in.whole {
		// A write past the end changes the hole before it too: what was the
		// last chunk grows.
		in.dirty.Add(min(from, in.row.size), to)
	}
	now := t.now()
	in.row.mtime, in.row.ctime = now, now
	in.soft = true
	old := in.row.size
	if to > old {
		t.bytes64.Add(to - old)
		in.row.size = to
	}
	t.occupied(in, to-from)
	if !in.row.has(flagPartial) {
		return nil
	}
	in.valid.Add(from, to)
	if to > old && from > old {
		in.valid.Add(old, from) // the hole between is zeros, whatever the commit says
	}
	if in.orphan {
		return nil
	}
	c, e := t.lockedChange(in)
	e.local()
	c.b.Put(key(tableRanges, in.ino), in.encodeRanges())
	t.syncBeforeJournal(in, in.row.backing) // what the ranges call valid must be on the disk first
	return c.applyLocked()
}

// beginWriting makes sure, before the first write of an epoch to a backing
// file, that a crash finds it: its entry is marked and it is known to be open
// for writing; if the file was clean, on the disk. A commit under way that has
// still to read the content as it was gets it frozen. The gate and in.mu are
// held.
func (t *Tree) beginWriting(in *inode) error {
	epoch := t.epoch.Load()
	if in.orphan || in.writing && in.row.has(flagDirty) && in.row.dirtyEpoch == epoch {
		return nil
	}
	if err := t.readRanges(in); err != nil {
		return err
	}
	wasClean := !in.row.has(flagDirty)
	if !wasClean && in.row.dirtyEpoch < epoch {
		t.freeze(in)
	}
	c, e := t.lockedChange(in)
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = epoch
	c.b.Put(c.ownKey(tableWriting, in.ino), nil)
	if err := c.applyLocked(); err != nil {
		return err
	}
	in.writing = true
	if wasClean {
		return t.Sync()
	}
	return nil
}

// truncate sets the size of a file.
func (t *Tree) truncate(_ context.Context, in *inode, size int64) error {
	if size < 0 {
		return ErrInvalid
	}
	if size > MaxSize {
		return ErrFileTooBig
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.row.isDir():
		return ErrIsDir
	case !in.row.isFile():
		return ErrInvalid
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
		t.freeze(in)
	}
	c, e := t.lockedChange(in)
	r := c.written(e, 0)
	c.bytes -= r.size
	r.size = 0
	had := in.row.has(flagBacking)
	if in.row.has(flagInline) && in.row.size > 0 {
		c.b.Delete(key(tableInline, in.ino))
	}
	if had {
		c.b.Delete(backingKey(in.row.backing))
		c.b.Delete(key(tableRanges, in.ino))
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
		in.file, in.writing = nil, false
		in.valid.Clear()
		in.dirty.Clear()
		t.removeBacking(number, in.seq)
	}
	in.whole, in.ranged = true, true
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
	c.bytes = size - in.row.size
	r.size = size
	c.b.Put(key(tableInline, in.ino), nb)
	if err := c.applyLocked(); err != nil {
		return err
	}
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
	if err := in.file.Truncate(size); err != nil {
		return noSpace(fmt.Errorf("%s: truncate: %w", t.Path(in.ino), err))
	}
	if size > old {
		in.valid.Add(old, size)
	} else {
		in.valid.Remove(size, 1<<62)
		in.dirty.Remove(size, 1<<62)
	}
	if !in.whole {
		// The last chunk of the committed version changes its length too.
		from := min(old, size) / dag.ChunkSize * dag.ChunkSize
		in.dirty.Add(from, max(from, size))
	}
	t.countLocal(in)
	c, e := t.lockedChange(in)
	r := c.written(e, size)
	c.bytes = size - old
	r.size = size
	if in.row.has(flagPartial) && !in.orphan {
		c.b.Put(key(tableRanges, in.ino), in.encodeRanges())
		t.syncBeforeJournal(in, in.row.backing)
	}
	return c.applyLocked()
}

// Allocate reserves, zeroes or punches out a range, as fallocate.
func (f *File) Allocate(_ context.Context, off, n int64, mode uint32) error {
	in, t := f.in, f.t
	const known = unix.FALLOC_FL_KEEP_SIZE | unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_ZERO_RANGE
	switch {
	case !f.writable:
		return ErrPerm
	case off < 0 || n <= 0:
		return ErrInvalid
	case off+n > MaxSize:
		return ErrFileTooBig
	case mode&^known != 0:
		return ErrUnsupported
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	defer t.changed()
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	if !in.row.has(flagBacking) {
		if err := t.moveToBacking(in); err != nil {
			return err
		}
	}
	return t.allocate(in, off, off+n, mode)
}

func (t *Tree) allocate(in *inode, from, to int64, mode uint32) error {
	if err := t.beginWriting(in); err != nil {
		return err
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	zeroes := mode&(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_ZERO_RANGE) != 0
	if zeroes {
		if err := t.preserve(in, from, min(to, in.row.size)); err != nil {
			return err
		}
	}
	if err := in.file.Allocate(mode, from, to-from); err != nil {
		if err == unix.EOPNOTSUPP {
			return ErrUnsupported
		}
		return noSpace(fmt.Errorf("%s: allocate: %w", t.Path(in.ino), err))
	}
	t.countLocal(in)
	in.soft = true
	end := in.row.size
	if mode&unix.FALLOC_FL_KEEP_SIZE == 0 {
		end = max(end, to)
	}
	if zeroes && from < min(to, end) {
		return t.noteWrite(in, from, min(to, end))
	}
	if end > in.row.size {
		return t.noteWrite(in, in.row.size, end)
	}
	return nil
}
