package tree

// CopyWhole gives an empty file all the content of another one that a commit has
// and that is not all on this device, without fetching it: both refer to the same
// blocks from now on. It returns how many bytes that are, most at most. Where it
// cannot be done so, it is ErrUnsupported, and the caller reads and writes; so it
// is with content that is here, for a copy of that is to be here as well, and with a
// file that the kernel writes alone, which it would go on doing beside the reference.
// kill is killPriv of WriteAt.
func (f *File) CopyWhole(src *File, most int64, kill bool) (int64, error) {
	if !f.writable {
		return 0, ErrPerm
	}
	if src.t != f.t || src.in == f.in {
		return 0, ErrUnsupported
	}
	t, to := f.t, f.in
	c := t.begin()
	t.names.Lock() // two inodes are locked, of which none is above the other
	defer t.names.Unlock()
	from, e := &c.edit(src.in).row, c.edit(to)
	if !src.in.mayLend() || from.size > most || !to.mayBorrow() || t.currentCut() != nil {
		c.abandon()
		return 0, ErrUnsupported
	}
	r := c.written(e, from.size)
	if kill {
		r.mode = killPriv(r.mode)
	}
	r.flags = r.flags&^(flagDirty|flagInline) | flagCommitted
	r.content, r.contentSize, r.room = from.content, from.contentSize, from.room
	n := r.size
	if err := c.apply(); err != nil {
		return 0, err
	}
	to.mu.Lock()
	defer to.mu.Unlock()
	if !to.row.has(flagBacking) {
		to.whole, to.ranged, to.loose = false, true, 0
		to.valid.Clear()
		to.dirty.Clear()
	}
	return n, nil
}

// mayLend reports whether the newest commit has all of a file and this device has
// not; in.mu is held. A commit that is made meanwhile has it too, as the file has a
// name and did not change.
func (in *inode) mayLend() bool {
	r := &in.row
	return r.isFile() && !in.orphan && !in.writing && !r.has(flagDirty) &&
		!r.content.IsZero() && r.contentSize == r.size && !r.isHere()
}

// mayBorrow reports whether a file is empty and known by its row alone; in.mu is
// held.
func (in *inode) mayBorrow() bool {
	r := &in.row
	return r.isFile() && !in.orphan && !in.passthrough && !in.writing && in.frozen == nil &&
		r.size == 0 && r.has(flagInline)
}
