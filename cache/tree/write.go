package tree

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/dag"
)

// WriteAt writes p at off. The kernel has found out already where the end is, for a
// handle opened with O_APPEND; what it writes for a mapping through such a handle,
// or for one that has lost the flag since, goes to its place. killPriv clears
// set-user-id and set-group-id, as the kernel asks for it.
func (f *File) WriteAt(ctx context.Context, p []byte, off int64, killPriv bool) (int, error) {
	if !f.writable {
		return 0, ErrPerm
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := f.t.room.Write(ctx, int64(len(p))); err != nil {
		return 0, err
	}
	n, err := f.writeAt(p, off, killPriv)
	if errors.Is(err, ErrNoSpace) && !errors.Is(err, errManyRanges) { // others have just filled the disk
		err = f.t.room.Again(ctx, int64(len(p)-n), func() error {
			more, err := f.writeAt(p[n:], off+int64(n), killPriv)
			n += more
			return err
		})
	}
	if err == nil && f.sync {
		if err = f.Sync(ctx, true); err != nil {
			n = 0 // what did not reach the disk was not written
		}
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
	end := off + int64(len(p))
	if off < 0 || end > MaxSize {
		return 0, ErrFileTooBig
	}
	if killPriv {
		if err := t.dropPriv(in); err != nil {
			return 0, err
		}
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

// dropPriv clears set-user-id and set-group-id of a file that is about to be written, and
// flushes that: no end of the process, nor of the power, brings them back to what others
// wrote. The gate and in.mu are held.
func (t *Tree) dropPriv(in *inode) error {
	mode := killPriv(in.row.mode)
	if mode == in.row.mode {
		return nil
	}
	c, e := t.lockedChange(in)
	r := e.touched()
	r.mode, r.ctime = mode, c.now
	if err := c.applyLocked(); err != nil || in.orphan {
		return err
	}
	return t.syncTo(in.seq)
}

// written makes the row of a file whose content changed up to end.
func (c *change) written(e *edit, end int64) *row {
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	r.mtime, r.ctime = c.now, c.now
	if end > r.size {
		r.size = end
	}
	return r
}

func (t *Tree) writeInline(in *inode, p []byte, off int64) (int, error) {
	c, e := t.lockedChange(in)
	c.written(e, off+int64(len(p)))
	if off == 0 && int64(len(p)) >= in.row.size {
		c.b.Put(c.ownKey(tableInline, in.ino), p) // nothing stays of what was there
	} else {
		c.b.Patch(c.ownKey(tableInline, in.ino), int(off), p)
	}
	if err := c.applyLocked(); err != nil {
		return 0, err
	}
	in.holdsLoose(in.seq)
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

func (t *Tree) writeBacking(in *inode, p []byte, off int64) (int, error) {
	if err := t.mayScatter(in, off, off+int64(len(p))); err != nil {
		return 0, err
	}
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
	if err := t.tellEnd(in, end); err != nil {
		return 0, err
	}
	t.changedContent(in)
	in.refine(off, int64(len(p)))
	n, err := writePieces(in.file, p, off)
	if n > 0 {
		if nerr := t.noteWrite(in, p[:n], off, off+int64(n)); nerr != nil {
			return 0, nerr
		}
	}
	if err != nil {
		return n, noSpace(fmt.Errorf("%s: %w", t.Path(in.ino), err))
	}
	return n, nil
}

// noteWrite takes note that [from, to) of the backing file was written with p, or
// made a hole where p is nil. The row follows when the file is closed, unless what
// is here has to be known after a crash.
func (t *Tree) noteWrite(in *inode, p []byte, from, to int64) error {
	t.written64.Add(in.newlyDirty(from, to))
	// A write past the end changes the hole before it too: what was the last
	// chunk grows.
	in.noteDirty(min(from, in.row.size), to)
	now := t.now()
	in.row.mtime, in.row.ctime = now, now
	in.soft = true
	old := in.row.size
	if to > old {
		if in.row.room > 0 {
			in.row.room += wholePages(to - old)
		}
		in.row.size = to
	}
	t.occupied(in, to-from)
	if !in.row.has(flagPartial) {
		return nil
	}
	t.closeGaps(in, from/dag.ChunkSize)
	defer in.addOwn()
	err := t.noteValid(in, p, min(from, old), from, to) // a hole between is zeros, whatever the commit says
	if err != nil {
		if to > old { // what the commit has there was cut off, and does not come back
			in.valid.Add(old, to)
		}
		t.leaveUntold(in) // what was fetched of it is overwritten, though the write failed
	}
	return err
}

// beginWriting makes sure, before the first write of an epoch to a backing
// file, that a crash finds it: its entry is marked and it is known to be open
// for writing; if the file was clean, on the disk. A commit under way that has
// still to read the content as it was gets it frozen. The gate and in.mu are
// held.
func (t *Tree) beginWriting(in *inode) error {
	if in.orphan {
		return t.beginNameless(in)
	}
	epoch := t.epoch.Load()
	if in.writing && in.row.has(flagDirty) && in.row.dirtyEpoch == epoch {
		return nil
	}
	if err := t.readRanges(in); err != nil {
		return err
	}
	wasClean := !in.row.has(flagDirty) || in.marking
	if !wasClean && in.row.dirtyEpoch < epoch {
		if err := t.freeze(in); err != nil {
			return err
		}
	}
	c, e := t.lockedChange(in)
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = epoch
	c.b.Put(c.ownKey(tableWriting, in.ino), nil)
	if wasClean && in.row.has(flagPartial) {
		// Its size is that of the backing file from now on.
		if err := t.syncBacking(in); err != nil {
			return err
		}
	}
	if err := c.applyLocked(); err != nil {
		return err
	}
	if in.marking = wasClean; wasClean {
		if err := t.syncTo(in.seq); err != nil {
			return err
		}
	}
	in.marking, in.writing = false, true
	return nil
}

// beginNameless is beginWriting for a file without a name. A commit that began when
// it had one may still have to read it. And if it was clean then, it must have lost
// the name on the disk, too: power loss would bring it back as clean, with what is
// written now. in.mu is held.
func (t *Tree) beginNameless(in *inode) error {
	if !in.row.has(flagBacking) {
		return nil
	}
	if in.row.has(flagDirty) {
		if cut := t.currentCut(); cut != nil && in.goneEpoch > cut.epoch {
			return t.freeze(in)
		}
		return nil
	}
	if err := t.syncTo(in.seq); err != nil {
		return err
	}
	in.row.flags |= flagDirty
	in.row.dirtyEpoch = t.epoch.Load()
	return nil
}
