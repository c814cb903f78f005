package tree

import (
	"errors"
	"fmt"

	"skep/cache/disk"
)

// noContent, as inode.loose, says that the inline row is empty.
const noContent = 1<<64 - 1

// holdsLoose takes note that a batch put content into the inline row; in.mu is
// held.
func (in *inode) holdsLoose(seq uint64) {
	if in.loose == noContent {
		in.loose = seq
	}
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
	n := e.row.backing
	err := c.applyLocked()
	if err != nil {
		t.takeBackOf(in, n, err)
	}
	return err
}

// takeBackOf is takeBack of the backing file n that an inode was about to get; in.mu
// is held.
func (t *Tree) takeBackOf(in *inode, n uint64, err error) {
	if in.file != nil && !in.row.has(flagBacking) {
		t.takeBack(n, in.file, err)
		in.file = nil
	}
}

// takeBack closes a new backing file that the tables could not be told of, and
// deletes it if they have nothing of it: where that is not known, it stays until the
// sweep at the next start.
func (t *Tree) takeBack(n uint64, f disk.File, err error) {
	_ = f.Close()
	if !errors.Is(err, ErrNoSpace) {
		return
	}
	if err := t.files.Remove(n); err != nil {
		t.log.Warn("cannot delete a backing file", "err", err)
	}
}

// backingRun is how many numbers of backing files are reserved at a time.
const backingRun = 4096

// nameBacking notes that backing file n belongs to an inode, and that the number
// is taken.
func (c *change) nameBacking(n uint64, ino Ino) {
	c.b.Put(c.ownKey(tableBacking, Ino(n)), c.uint64Value(uint64(ino)))
	if n > c.t.backingLimit.Load() {
		c.reserved = n + backingRun
		c.b.Put(singleKey("backing"), c.uint64Value(c.reserved))
	}
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
	if len(content) > 0 && !in.orphan && (in.loose == 0 || t.st.Durable(in.loose)) {
		// What is safe in the journal stays safe.
		if err := errors.Join(f.Datasync(), t.files.SyncName(n)); err != nil {
			_ = f.Close()
			_ = t.files.Remove(n)
			return noSpace(fmt.Errorf("backing file: %w", err))
		}
	}
	r := e.local()
	wasInline := r.has(flagInline)
	r.backing = n
	r.flags = r.flags&^flagInline | flagBacking
	r.local = wholePages(int64(len(content)))
	if !wasInline && r.size > 0 {
		r.flags |= flagPartial
	}
	in.file, in.named, in.flushErr = f, false, nil
	t.changedContent(in)
	in.valid.Clear()
	in.dirty.Clear()
	in.ranged, in.whole = true, wasInline
	if !in.orphan {
		c.nameBacking(n, in.ino)
		if wasInline { // until it is flushed, the file may be missing after power loss
			c.b.Put(key(tableWriting, in.ino), nil)
		}
		if len(content) > 0 {
			c.b.Delete(key(tableInline, in.ino))
		}
		if r.has(flagPartial) {
			c.putRanges(in)
		}
	}
	in.inline = nil
	return nil
}
