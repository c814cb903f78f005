package tree

import "context"

// maxLinks is how many names an inode can have.
const maxLinks = 65000

// Link gives an inode another name.
func (t *Tree) Link(ctx context.Context, ino, dir Ino, name string) (a Attr, err error) {
	err = t.patiently(ctx, func() (err error) {
		a, err = t.tryLink(ctx, ino, dir, name)
		return err
	})
	return a, err
}

func (t *Tree) tryLink(ctx context.Context, ino, dir Ino, name string) (Attr, error) {
	if err := checkName(name); err != nil {
		return Attr{}, err
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(d)
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(in)
	c := t.begin()
	t.names.Lock()
	defer t.names.Unlock()
	if err := c.link(in, d, name); err != nil {
		c.abandon()
		return Attr{}, err
	}
	a := attrOfRow(ino, &c.edit(in).row)
	return a, c.apply()
}

func (c *change) link(in, d *inode, name string) error {
	de, e := c.edit(d), c.edit(in)
	_, err := c.t.findEntry(d, name)
	switch {
	case e.row.isDir():
		return ErrPerm
	case d.orphan:
		return ErrNotFound
	case err == nil:
		return ErrExists
	case err != ErrNotFound:
		return err
	case e.row.nlink >= maxLinks:
		return ErrTooManyLinks
	}
	r := e.touched()
	r.ctime = c.now
	if in.orphan {
		if err := c.adopt(e, d.ino, name); err != nil {
			return err
		}
	} else {
		r.nlink++
		if !r.has(flagMulti) {
			c.mark(r.parent, r.name) // its entry becomes one that names the inode alone
			r.flags |= flagMulti
		}
		c.mark(Links, linkName(in.ino))
	}
	c.putEntry(de, name, in.ino, r.mode)
	dr := de.local()
	dr.mtime, dr.ctime = c.now, c.now
	return nil
}

// adopt gives a file that never had a name its first one.
func (c *change) adopt(e *edit, dir Ino, name string) error {
	in, r := e.in, &e.row
	if r.nlink != 0 || in.stale || !in.row.isFile() {
		return ErrNotFound
	}
	r.nlink, r.parent, r.name = 1, dir, name
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	if in.left {
		c.b.Delete(key(tableLeft, in.ino))
	} else if len(in.inline) > 0 {
		c.b.Put(key(tableInline, in.ino), in.inline)
	}
	if r.has(flagBacking) {
		c.b.Put(backingKey(r.backing), uint64Value(uint64(in.ino)))
		c.b.Put(key(tableWriting, in.ino), nil)
	}
	if in.xattrsRead && len(in.xattrs) > 0 {
		c.b.Put(key(tableXattrs, in.ino), encodeXattrs(in.xattrs))
	}
	e.adopt = true
	c.files = 1
	return nil
}

// adopted makes an inode one with a name, now that the tables say so; in.mu is held.
func (t *Tree) adopted(in *inode, r *row) {
	in.orphan, in.left, in.markedEpoch = false, false, 0
	in.inline = nil
	if r.has(flagBacking) {
		in.writing = true
		t.flushLater(in) // what has no name is not flushed by itself
	}
	t.release(in) // the reference that kept the orphan; the caller holds another
}
