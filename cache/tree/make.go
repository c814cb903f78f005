package tree

import (
	"context"

	"golang.org/x/sys/unix"
)

// newInode gives an inode that is being made in a directory its row and its
// attributes.
func (c *change) newInode(e, dir *edit, name string, mode, rdev uint32, o Owner) (err error) {
	r := row{mode: mode, nlink: 1, uid: o.UID, gid: o.GID, rdev: rdev,
		atime: c.now, mtime: c.now, ctime: c.now, btime: c.now, parent: dir.in.ino, name: name}
	if dir.row.mode&modeSGID != 0 {
		r.gid = dir.row.gid
		if r.isDir() {
			r.mode |= modeSGID
		}
	}
	switch {
	case r.isDir():
		r.nlink, r.cookie, r.flags = 2, firstCookie, flagLoaded
	case r.isFile():
		r.flags, r.dirtyEpoch = flagInline|flagDirty, c.epoch
	}
	e.xattrs, err = c.inherit(dir, &r, o.Umask)
	e.row = r
	return err
}

// make adds a new inode under a name. fill may complete its row and the batch, also
// more than once; the inode comes back with a reference.
func (t *Tree) make(ctx context.Context, dir Ino, name string, mode, rdev uint32, o Owner, fill func(*change, *edit)) (in *inode, a Attr, err error) {
	err = t.patiently(ctx, func() (err error) {
		in, a, err = t.tryMake(ctx, dir, name, mode, rdev, o, fill)
		return err
	})
	return in, a, err
}

func (t *Tree) tryMake(ctx context.Context, dir Ino, name string, mode, rdev uint32, o Owner, fill func(*change, *edit)) (*inode, Attr, error) {
	if err := checkName(name); err != nil {
		return nil, Attr{}, err
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return nil, Attr{}, err
	}
	defer t.release(d)
	c := t.begin()
	t.names.RLock()
	defer t.names.RUnlock()
	de := c.edit(d)
	if err := t.mayAdd(d, name); err != nil {
		c.abandon()
		return nil, Attr{}, err
	}
	in := &inode{ino: t.newIno(&c.b), seq: t.kept.Load(), markedEpoch: c.epoch, ranged: true, xattrsRead: true, loose: noContent}
	e := c.edit(in)
	if err := c.newInode(e, de, name, mode, rdev, o); err != nil {
		c.abandon()
		return nil, Attr{}, err
	}
	e.local()
	if e.row.isDir() {
		in.known.all = true
		de.row.nlink++
	}
	if fill != nil {
		fill(c, e)
	}
	c.putEntry(de, name, in.ino, mode)
	dr := de.local()
	dr.mtime, dr.ctime = c.now, c.now
	c.files = 1
	a := attrOfRow(in.ino, &e.row)
	t.inodes.add(in) // before its name can be found
	if err := c.apply(); err != nil {
		t.inodes.remove(in)
		return nil, Attr{}, err
	}
	return in, a, nil
}

// mayAdd reports whether a name may be added to a directory; d.mu is held.
func (t *Tree) mayAdd(d *inode, name string) error {
	_, err := t.findEntry(d, name)
	switch {
	case err == nil:
		return ErrExists
	case err != ErrNotFound:
		return err
	case d.orphan:
		return ErrNotFound
	}
	return nil
}

// Mknod makes a regular file, fifo, socket or device.
func (t *Tree) Mknod(ctx context.Context, dir Ino, name string, mode, rdev uint32, o Owner) (Attr, error) {
	switch mode & modeType {
	case modeReg, unix.S_IFIFO, unix.S_IFSOCK, unix.S_IFBLK, unix.S_IFCHR:
	case 0:
		mode |= modeReg
	default:
		return Attr{}, ErrInvalid
	}
	in, a, err := t.make(ctx, dir, name, mode, rdev, o, nil)
	if err != nil {
		return Attr{}, err
	}
	t.release(in)
	return a, nil
}

// Mkdir makes a directory.
func (t *Tree) Mkdir(ctx context.Context, dir Ino, name string, mode uint32, o Owner) (Attr, error) {
	in, a, err := t.make(ctx, dir, name, mode&^modeType|modeDir, 0, o, nil)
	if err != nil {
		return Attr{}, err
	}
	t.release(in)
	return a, nil
}

// Symlink makes a symbolic link.
func (t *Tree) Symlink(ctx context.Context, dir Ino, name, target string, o Owner) (Attr, error) {
	if len(target) > 4095 {
		return Attr{}, ErrNameTooLong
	}
	in, a, err := t.make(ctx, dir, name, modeLnk|0o777, 0, o, func(c *change, e *edit) {
		e.row.size = int64(len(target))
		c.b.Put(c.ownKey(tableInline, e.in.ino), []byte(target))
	})
	if err != nil {
		return Attr{}, err
	}
	t.release(in)
	return a, nil
}
