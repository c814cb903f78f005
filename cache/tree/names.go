package tree

import (
	"context"
	"errors"
	"strings"

	"golang.org/x/sys/unix"
)

// firstCookie is the cookie of a directory's first entry: "." and ".." come
// before it.
const firstCookie = 3

// maxLinks is how many names an inode can have.
const maxLinks = 65000

func checkName(name string) error {
	switch {
	case len(name) > NameMax:
		return ErrNameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return ErrInvalid
	}
	return nil
}

// directory returns a loaded directory with a reference. The caller holds no
// lock.
func (t *Tree) directory(ctx context.Context, ino Ino) (*inode, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	dir, loaded, gone := in.row.isDir(), in.row.has(flagLoaded), in.orphan
	in.mu.Unlock()
	if !dir {
		t.release(in)
		return nil, ErrNotDir
	}
	if loaded || gone {
		return in, nil
	}
	if err := t.load(ctx, in); err != nil {
		t.release(in)
		return nil, err
	}
	return in, nil
}

// Lookup finds a name.
func (t *Tree) Lookup(ctx context.Context, dir Ino, name string) (Attr, error) {
	if len(name) > NameMax {
		return Attr{}, ErrNameTooLong
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(d)
	e, err := t.lockedEntry(d, name)
	if err != nil {
		return Attr{}, err
	}
	a, err := t.Attr(ctx, e.ino)
	if errors.Is(err, ErrStale) {
		return Attr{}, ErrNotFound // removed meanwhile
	}
	return a, err
}

// lockedEntry is findEntry for who does not hold d.mu.
func (t *Tree) lockedEntry(d *inode, name string) (entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return t.findEntry(d, name)
}

// Parent returns the directory above dir; the root is its own.
func (t *Tree) Parent(ctx context.Context, dir Ino) (Ino, error) {
	in, err := t.acquire(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if dir == Root || in.row.parent == 0 {
		return Root, nil
	}
	return in.row.parent, nil
}

// newInode is the row of an inode that is being made in a directory.
func (c *change) newInode(dir *edit, name string, mode, rdev uint32, o Owner) row {
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
	return r
}

// make adds a new inode under a name. fill may complete its row and the batch;
// the inode comes back with a reference.
func (t *Tree) make(ctx context.Context, dir Ino, name string, mode, rdev uint32, o Owner, fill func(*change, *edit)) (*inode, Attr, error) {
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
	in := &inode{ino: t.newIno(&c.b), markedEpoch: c.epoch, ranged: true}
	e := c.edit(in)
	e.row = c.newInode(de, name, mode, rdev, o)
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
	c.files, c.bytes = 1, e.row.size
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

// Readlink returns where a symbolic link points to.
func (t *Tree) Readlink(ctx context.Context, ino Ino) (string, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return "", err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.mode&modeType != modeLnk {
		return "", ErrInvalid
	}
	b, err := t.inlineContent(in)
	return string(b), err
}

// Link gives an inode another name.
func (t *Tree) Link(ctx context.Context, ino, dir Ino, name string) (Attr, error) {
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
	if len(in.inline) > 0 {
		c.b.Put(key(tableInline, in.ino), in.inline)
	}
	if r.has(flagBacking) {
		c.b.Put(backingKey(r.backing), uint64Value(uint64(in.ino)))
		c.b.Put(key(tableWriting, in.ino), nil)
		in.writing = true
	}
	if in.xattrsRead && len(in.xattrs) > 0 {
		c.b.Put(key(tableXattrs, in.ino), encodeXattrs(in.xattrs))
	}
	in.orphan, in.markedEpoch = false, 0
	in.inline = nil
	c.files, c.bytes = 1, r.size
	c.t.release(in) // the reference that kept the orphan; the caller holds another
	return nil
}

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
		err = c.unlink(de, name, e, c.edit(in), wantDir)
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
	if err := c.t.keepForOrphan(in); err != nil {
		return err
	}
	for _, table := range [...]byte{tableInode, tableInline, tableXattrs, tableRanges, tableWriting} {
		if c.t.mayHave(in, table) {
			c.b.Delete(c.ownKey(table, in.ino))
		}
	}
	if in.row.has(flagBacking) {
		c.b.Delete(backingKey(in.row.backing))
	}
	c.files--
	if in.row.isFile() {
		c.bytes -= in.row.size
	}
	return nil
}

// mayHave reports whether an inode can have a row in a table.
func (t *Tree) mayHave(in *inode, table byte) bool {
	switch table {
	case tableInline:
		return in.row.has(flagInline) || in.row.mode&modeType == modeLnk
	case tableRanges, tableWriting:
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
	if in.opens > 0 {
		return t.readXattrs(in)
	}
	return nil
}

// orphaned makes in one that no name leads to; it keeps a reference of its own
// until it is forgotten. in.mu is held.
func (t *Tree) orphaned(in *inode) {
	in.orphan = true
	in.hold()
}
