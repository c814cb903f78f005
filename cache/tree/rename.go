package tree

import (
	"context"

	"golang.org/x/sys/unix"
)

// Rename moves an entry, replacing what was there, or, with RENAME_EXCHANGE,
// exchanging the two; with RENAME_NOREPLACE it refuses to replace.
func (t *Tree) Rename(ctx context.Context, dir Ino, name string, newDir Ino, newName string, flags uint32) error {
	if flags&^(unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE) != 0 || flags == unix.RENAME_NOREPLACE|unix.RENAME_EXCHANGE {
		return ErrInvalid
	}
	if err := firstOf(checkName(name), checkName(newName)); err != nil {
		return err
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(d)
	nd, err := t.directory(ctx, newDir)
	if err != nil {
		return err
	}
	defer t.release(nd)
	return t.patiently(ctx, func() error {
		for {
			done, err := t.tryRename(ctx, rename{from: d, to: nd, name: name, newName: newName, flags: flags})
			if done || err != nil {
				return err
			}
		}
	})
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// rename is one move in the making.
type rename struct {
	from, to      *inode // directories
	name, newName string
	flags         uint32
	moved, victim *inode // victim is nil where nothing is there
}

// replaces reports whether one is about to take another's place.
func (r *rename) replaces() bool {
	return r.victim != nil && r.victim != r.moved && r.flags == 0
}

// tryRename acquires what the names lead to, without locks, and moves if they
// still do afterwards; else done is false.
func (t *Tree) tryRename(ctx context.Context, r rename) (done bool, err error) {
	if r.moved, err = t.named(ctx, r.from, r.name); err != nil {
		return false, err
	}
	defer t.release(r.moved)
	find := t.victim
	if r.flags != 0 { // nothing is replaced
		find = t.named
	}
	r.victim, err = find(ctx, r.to, r.newName)
	if err == nil {
		defer t.release(r.victim)
	} else if err != ErrNotFound {
		return false, err
	}
	if r.replaces() {
		// The new content before the new name: the journal's record of the
		// move may get to the disk at any time.
		if err := t.flushContent(r.moved); err != nil {
			return false, err
		}
	}
	c := t.begin()
	t.names.Lock()
	defer t.names.Unlock()
	c.edit(r.from)
	src, err := t.findEntry(r.from, r.name)
	if err != nil {
		c.abandon()
		return false, err
	}
	c.edit(r.to)
	dst, err := t.findEntry(r.to, r.newName)
	if err != nil && err != ErrNotFound {
		c.abandon()
		return false, err
	}
	there := err == nil
	if src.ino != r.moved.ino || there != (r.victim != nil) || there && dst.ino != r.victim.ino {
		c.abandon()
		return false, nil
	}
	if r.victim == r.moved || r.from == r.to && r.name == r.newName {
		c.abandon() // two names of one inode: POSIX says nothing happens
		if r.flags&unix.RENAME_NOREPLACE != 0 {
			return true, ErrExists
		}
		return true, nil
	}
	if err := c.rename(r, src, dst); err != nil {
		c.abandon()
		return false, err
	}
	return true, c.apply()
}

func (c *change) rename(r rename, src, dst entry) error {
	exchange := r.flags&unix.RENAME_EXCHANGE != 0
	switch {
	case r.victim == nil && exchange:
		return ErrNotFound
	case r.victim != nil && r.flags&unix.RENAME_NOREPLACE != 0:
		return ErrExists
	}
	if err := c.noLoop(src.typ, r.moved, r.to); err != nil {
		return err
	}
	if exchange {
		if err := c.noLoop(dst.typ, r.victim, r.from); err != nil {
			return err
		}
	}
	from, to := c.edit(r.from), c.edit(r.to)
	if r.to.orphan {
		return ErrNotFound
	}
	m := c.edit(r.moved)
	if r.victim != nil && !exchange {
		v := c.editRemoved(r.victim)
		switch {
		case m.row.isDir() && !v.row.isDir():
			return ErrNotDir
		case !m.row.isDir() && v.row.isDir():
			return ErrIsDir
		}
		if err := c.unlink(to, r.newName, dst, v, v.row.isDir()); err != nil {
			return err
		}
	}
	c.deleteEntry(from, r.name, src)
	if exchange {
		v := c.edit(r.victim)
		c.deleteEntry(to, r.newName, dst)
		c.place(v, to, from, r.name)
	}
	c.place(m, from, to, r.newName)
	return nil
}

// place gives an inode, taken out of old, its new name in dir.
func (c *change) place(e *edit, old, dir *edit, name string) {
	c.putEntry(dir, name, e.in.ino, e.row.mode)
	r := e.touched()
	r.ctime = c.now
	r.parent, r.name = dir.in.ino, name
	e.in.markedEpoch = 0 // the mark of the new place is not the one of the old
	if r.isDir() && old != dir {
		old.row.nlink--
		dir.row.nlink++
	}
	for _, d := range []*edit{old, dir} {
		d.local().mtime, d.local().ctime = c.now, c.now
	}
}

// noLoop refuses to move a directory below itself; t.names is held exclusively.
func (c *change) noLoop(typ uint32, moved, to *inode) error {
	if typ != modeDir {
		return nil
	}
	for in := to.ino; ; {
		if in == moved.ino {
			return ErrInvalid
		}
		if in == Root || in == 0 {
			return nil
		}
		r, err := c.t.readRow(context.Background(), in)
		if err != nil {
			return err
		}
		in = r.parent
	}
}
