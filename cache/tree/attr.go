package tree

import (
	"context"
	"errors"
	"io/fs"

	"golang.org/x/sys/unix"
)

// attr is what stat tells; in.mu is held, or nobody else knows in yet.
func (in *inode) attr() Attr {
	a := attrOfRow(in.ino, &in.row)
	a.Mapped, a.Passed = in.held != nil && in.held.writable, in.passthrough && in.writers > 0
	if a.Blocks == 0 && a.Size > 0 && in.storers > 0 {
		a.Blocks, a.Mapped = 8, true // 0 would say that it is all a hole
	}
	return a
}

func attrOfRow(ino Ino, r *row) Attr {
	a := Attr{Ino: ino, Mode: r.mode, Nlink: r.nlink, UID: r.uid, GID: r.gid, Rdev: r.rdev, Size: r.size,
		Blocks: r.blocks(), Atime: r.atime, Mtime: r.mtime, Ctime: r.ctime, Btime: r.btime}
	if r.isDir() {
		a.Size, a.Blocks = 4096, 8
	}
	return a
}

// attrOf returns the attributes of an inode without keeping it in memory.
func (t *Tree) attrOf(ctx context.Context, ino Ino) (Attr, error) {
	in, _ := t.inodes.find(ino)
	if in == nil {
		r, err := t.readRow(ctx, ino)
		if err != nil {
			return Attr{}, err
		}
		return attrOfRow(ino, &r), nil
	}
	defer t.release(in)
	return t.attrIn(in), nil
}

// attrIn returns the attributes of an inode that the caller has a reference of.
func (t *Tree) attrIn(in *inode) Attr {
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	return in.attr()
}

// Attr returns the attributes of an inode.
func (t *Tree) Attr(ctx context.Context, ino Ino) (Attr, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(in)
	return t.attrIn(in), nil
}

// refresh takes size and times of a passed-through file from its backing file,
// which the kernel writes without asking; in.mu is held.
func (t *Tree) refresh(in *inode) {
	if !in.passthrough || in.writers == 0 || in.file == nil {
		return
	}
	st, err := in.file.Stat()
	if err != nil {
		return
	}
	in.noteBacking(st, t)
}

// noteBacking takes over what a backing file's size and time tell. The time
// counts if it is not the one that was seen last: a program may have set the
// inode's own meanwhile.
func (in *inode) noteBacking(st unix.Stat_t, t *Tree) {
	m := Time{st.Mtim.Sec, uint32(st.Mtim.Nsec)}
	empty := st.Size == 0 && in.row.size == 0 // its backing file is a moment younger than itself
	written := newer(m, in.backingTime()) && !empty
	if in.seenSet {
		written = m != in.seen
	}
	in.seen, in.seenSet = m, true
	changed := st.Size != in.row.size
	if written {
		in.row.mtime, in.row.ctime, changed = m, m, true
	}
	in.row.size = st.Size
	if n := st.Blocks * 512; n != in.row.local {
		in.row.local, changed = n, true
	}
	in.wrote = 0
	if changed {
		in.soft = true
		t.recharge(in)
	}
}

// backingTime is the modification time as far as a write made it.
func (in *inode) backingTime() Time {
	if newer(in.row.ctime, in.row.mtime) {
		return in.row.ctime // times set by a program do not count
	}
	return in.row.mtime
}

func newer(a, b Time) bool { return a.Sec > b.Sec || a.Sec == b.Sec && a.Nsec > b.Nsec }

// SetAttr changes attributes, and the size through truncation.
func (t *Tree) SetAttr(ctx context.Context, ino Ino, s SetAttr) (Attr, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(in)
	if s.Size != nil {
		if err := t.truncate(ctx, in, *s.Size); err != nil {
			return Attr{}, err
		}
	}
	c := t.begin()
	e := c.edit(in)
	t.refresh(in)
	e.row = in.row
	if err := c.setAttr(e, s); err != nil {
		c.abandon()
		return Attr{}, err
	}
	kills := (s.KillOwner || s.KillPriv) && e.row.mode != in.row.mode
	if err := c.apply(); err != nil {
		return Attr{}, err
	}
	if kills { // what the kernel writes then, maybe alone, must not have them: see dropPriv
		if err := t.syncTo(t.st.Seq()); err != nil {
			return Attr{}, err
		}
	}
	return t.attrIn(in), nil
}

// setAttr edits an inode's row. Times of access stay on this device.
func (c *change) setAttr(e *edit, s SetAttr) error {
	var r *row
	switch {
	case s.Mode != nil || s.UID != nil || s.GID != nil || s.Mtime != nil || s.Ctime != nil || s.KillPriv || s.KillOwner:
		r = e.touched()
	case s.Atime != nil:
		r = e.local()
	default:
		return nil
	}
	c.setTimes(r, s)
	setOwner(r, s)
	switch {
	case s.Mode != nil:
		r.mode = r.mode&modeType | *s.Mode&0o7777
		return c.chmodList(e)
	case s.KillOwner:
		r.mode = killOwner(r.mode)
	case s.KillPriv:
		r.mode = killPriv(r.mode)
	}
	return nil
}

func (c *change) setTimes(r *row, s SetAttr) {
	r.ctime = c.now
	if s.Atime != nil {
		r.atime = *s.Atime
	}
	if s.Mtime != nil {
		r.mtime = *s.Mtime
	}
	if s.Ctime != nil {
		r.ctime = *s.Ctime
	}
}

func setOwner(r *row, s SetAttr) {
	if s.UID != nil {
		r.uid = *s.UID
	}
	if s.GID != nil {
		r.gid = *s.GID
	}
}

// killPriv clears what a write by somebody unprivileged clears. Set-group-id
// without the right to execute, which says nothing, would stay for members of
// the group; nobody tells us who is one.
func killPriv(mode uint32) uint32 {
	if mode&modeType == modeDir {
		return mode
	}
	return mode &^ (modeSUID | modeSGID)
}

// killOwner clears what a change of owner clears.
func killOwner(mode uint32) uint32 {
	if mode&modeXGrp == 0 {
		return mode&modeSGID | killPriv(mode)
	}
	return killPriv(mode)
}

// absent reports whether an error says that a file is not there.
func absent(err error) bool { return errors.Is(err, fs.ErrNotExist) }
