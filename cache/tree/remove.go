package tree

import (
	"context"
	"errors"
)

// Unlink removes a name of a file.
func (t *Tree) Unlink(ctx context.Context, dir Ino, name string) error {
	return t.remove(ctx, dir, name, false)
}

// Rmdir removes an empty directory.
func (t *Tree) Rmdir(ctx context.Context, dir Ino, name string) error {
	return t.remove(ctx, dir, name, true)
}

func (t *Tree) remove(ctx context.Context, dir Ino, name string, wantDir bool) error {
	if len(name) > NameMax {
		return ErrNameTooLong
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(d)
	for {
		in, err := t.victim(ctx, d, name)
		if err != nil {
			return err
		}
		done, err := t.removeInode(d, name, in, wantDir)
		t.release(in)
		if done || err != nil {
			return err
		}
	}
}

// named returns the inode that a name leads to, with a reference.
func (t *Tree) named(ctx context.Context, d *inode, name string) (*inode, error) {
	e, err := t.lockedEntry(d, name)
	if err != nil {
		return nil, err
	}
	return t.acquire(ctx, e.ino)
}

// victim returns the inode that a name leads to, loaded if it is a directory,
// so that it can be told whether it is empty.
func (t *Tree) victim(ctx context.Context, d *inode, name string) (*inode, error) {
	e, err := t.lockedEntry(d, name)
	if err != nil {
		return nil, err
	}
	if e.typ == modeDir {
		return t.directory(ctx, e.ino)
	}
	return t.acquire(ctx, e.ino)
}

// removeInode removes the name if it still leads to in; else done is false.
func (t *Tree) removeInode(d *inode, name string, in *inode, wantDir bool) (done bool, err error) {
	c := t.begin()
	c.b.Freeing()
	t.names.RLock()
	defer t.names.RUnlock()
	de := c.edit(d) // the directory first: see the package comment
	e, err := t.findEntry(d, name)
	if err == nil && e.ino != in.ino {
		c.abandon()
		return false, nil
	}
	if err == nil {
		err = c.unlink(de, name, e, c.editRemoved(in), wantDir)
	}
	if err != nil {
		c.abandon()
		return false, err
	}
	return true, c.apply()
}

// unlink takes a name away and, with the last one, the inode.
func (c *change) unlink(de *edit, name string, ent entry, e *edit, wantDir bool) error {
	switch {
	case wantDir && !e.row.isDir():
		return ErrNotDir
	case !wantDir && e.row.isDir():
		return ErrIsDir
	}
	if wantDir {
		if empty, err := c.t.isEmpty(e.in); err != nil {
			return err
		} else if !empty {
			return ErrNotEmpty
		}
	}
	c.deleteEntry(de, name, ent)
	dr := de.local()
	dr.mtime, dr.ctime = c.now, c.now
	r := e.touched()
	r.ctime = c.now
	if r.isDir() {
		dr.nlink--
		r.nlink = 0
	} else {
		r.nlink--
	}
	if r.nlink == 0 {
		return c.dropLast(e)
	}
	return nil
}

// dropLast removes the rows of an inode that lost its last name. In memory it
// lives on until the kernel forgets it.
func (c *change) dropLast(e *edit) error {
	in := e.in
	e.drop, e.mark = true, false
	if in.row.has(flagMulti) {
		c.mark(Links, linkName(in.ino))
	}
	if in.opens == 0 && c.t.mayHave(in, tableInline) && in.row.size > 0 {
		e.leave = true
		c.b.Put(c.ownKey(tableLeft, in.ino), nil)
	} else if err := c.t.keepForOrphan(in); err != nil {
		return err
	}
	for _, table := range [...]byte{tableInode, tableInline, tableXattrs, tableWriting} {
		if c.t.mayHave(in, table) && !(e.leave && table == tableInline) {
			c.b.Delete(c.ownKey(table, in.ino))
		}
	}
	if in.row.isSmall() {
		c.b.Delete(c.ownKey(tableSmall, in.ino))
	}
	if in.row.has(flagBacking) {
		c.b.Delete(c.ownKey(tableBacking, Ino(in.row.backing)))
		c.dropRanges(in)
	}
	c.files--
	return nil
}

// mayHave reports whether an inode can have a row in a table.
func (t *Tree) mayHave(in *inode, table byte) bool {
	switch table {
	case tableInline:
		return in.row.has(flagInline) || in.row.mode&modeType == modeLnk
	case tableWriting:
		return in.row.has(flagBacking)
	case tableXattrs:
		return !in.xattrsRead || len(in.xattrs) > 0
	}
	return true
}

// keepForOrphan reads into memory what an inode without rows must still have.
func (t *Tree) keepForOrphan(in *inode) error {
	if in.row.has(flagInline) && in.row.size > 0 || in.row.mode&modeType == modeLnk {
		b, err := t.inlineContent(in)
		if err != nil {
			return err
		}
		in.inline = append([]byte(nil), b...)
	}
	var err error
	if in.row.has(flagBacking) && in.row.flags&(flagPartial|flagDirty) != 0 {
		err = t.readRanges(in) // also for a commit that is under way
	}
	if in.opens > 0 {
		return errors.Join(err, t.readXattrs(in))
	}
	return nil
}

// orphaned makes in one that no name leads to; it keeps a reference of its own
// until it is forgotten. in.mu is held.
func (t *Tree) orphaned(in *inode) {
	in.orphan, in.goneEpoch = true, t.epoch.Load()
	in.hold()
	if !in.row.content.IsZero() {
		t.orphans.add(in)
	}
}
