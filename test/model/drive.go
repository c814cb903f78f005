package model

import (
	"context"
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// Drive does operations on a tree of a drive, in process, as the kernel would
// through the mount: it resolves paths, and writes passed-through files itself.
type Drive struct {
	Tree *tree.Tree
	// Backing finds the backing file behind a descriptor that the tree gives
	// out for passing through.
	Backing func(fd int) Writer
	// Maintain does what programs do not see: from Commit on.
	Maintain func(Op) error

	handles map[int]*openFile
}

// Writer is what is written behind the tree's back.
type Writer interface {
	ReadAt(p []byte, off int64) (int, error)
	WriteAt(p []byte, off int64) (int, error)
}

type openFile struct {
	f      *tree.File
	flags  int
	pinned bool
}

var ctx = context.Background()

// Do implements Target.
func (d *Drive) Do(op Op) Result {
	data, err := d.do(op)
	if errno := errnoOf(err); errno != 0 {
		return Result{Errno: errno}
	}
	return Result{Data: data}
}

var errnos = map[error]unix.Errno{
	tree.ErrNotFound: unix.ENOENT, tree.ErrExists: unix.EEXIST, tree.ErrNotDir: unix.ENOTDIR, tree.ErrIsDir: unix.EISDIR,
	tree.ErrNotEmpty: unix.ENOTEMPTY, tree.ErrInvalid: unix.EINVAL, tree.ErrPerm: unix.EPERM, tree.ErrNoAttr: unix.ENODATA,
	tree.ErrNoSpace: unix.ENOSPC, tree.ErrStale: unix.ESTALE, tree.ErrUnsupported: unix.EOPNOTSUPP,
}

func errnoOf(err error) unix.Errno {
	var errno unix.Errno
	switch {
	case err == nil:
		return 0
	case errors.As(err, &errno):
		return errno
	}
	for e, n := range errnos {
		if errors.Is(err, e) {
			return n
		}
	}
	return unix.EIO
}

// Find returns the number of the inode at a path, if there is one.
func (d *Drive) Find(path string) (tree.Ino, error) {
	a, err := d.find(path)
	return a.Ino, err
}

// find resolves a path; symbolic links are dangling.
func (d *Drive) find(path string) (tree.Attr, error) {
	a, err := d.Tree.Attr(ctx, tree.Root)
	for _, name := range split(path) {
		if err == nil {
			err = walkable(a)
		}
		if err == nil {
			a, err = d.Tree.Lookup(ctx, a.Ino, name)
		}
	}
	return a, err
}

func walkable(a tree.Attr) error {
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		return unix.ENOENT
	case unix.S_IFDIR:
		return nil
	}
	return unix.ENOTDIR
}

func (d *Drive) parent(path string) (tree.Ino, string, error) {
	dir, name := Split(path)
	a, err := d.find(dir)
	if err == nil {
		err = walkable(a)
	}
	return a.Ino, name, err
}

// file finds a regular file to be opened.
func (d *Drive) file(path string) (tree.Attr, error) {
	a, err := d.find(path)
	if err != nil {
		return a, err
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a, nil
	case unix.S_IFDIR:
		return a, unix.EISDIR
	case unix.S_IFLNK:
		return a, unix.ELOOP
	}
	return a, unix.ENXIO
}

func (d *Drive) do(op Op) ([]byte, error) {
	switch op.Kind {
	case Create, Mkdir, Symlink, Mkfifo, Unlink, Rmdir:
		return nil, d.name(op)
	case Link:
		return nil, d.link(op)
	case Rename, NoReplace, Exchange:
		return nil, d.rename(op)
	case Chmod, Touch, SetXattr, RemoveXattr:
		return nil, d.setAttr(op)
	case Sync:
		return nil, d.Tree.Sync()
	case Commit, Evict, Forget, Restart:
		return nil, d.Maintain(op)
	case SyncDir:
		a, err := d.find(op.Path)
		if err != nil {
			return nil, err
		}
		if a.Mode&unix.S_IFMT == unix.S_IFLNK {
			return nil, unix.ELOOP
		}
		if err := walkable(a); err != nil {
			return nil, err
		}
		return nil, d.Tree.SyncDir(ctx, a.Ino)
	case Open, Close, WriteTo, ReadFrom, TruncateOpen, PunchOpen, StoreTo, FsyncOpen, Tmpfile, LinkOpen:
		return d.onHandle(op)
	}
	a, err := d.file(op.Path)
	if err != nil {
		return nil, err
	}
	if op.Kind == Truncate {
		_, err := d.Tree.SetAttr(ctx, a.Ino, tree.SetAttr{Size: &op.Len})
		return nil, err
	}
	if op.Kind == Copy {
		return nil, d.copy(a, op)
	}
	flags := map[Kind]int{Read: os.O_RDONLY, Append: os.O_WRONLY | os.O_APPEND, Empty: os.O_WRONLY | os.O_TRUNC,
		Fsync: os.O_RDONLY, Fdatasync: os.O_RDONLY}
	fl, ok := flags[op.Kind]
	if !ok {
		fl = os.O_RDWR
	}
	fl |= op.Flags
	f, err := d.Tree.Open(ctx, a.Ino, fl)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	return d.content(&openFile{f: f, flags: fl}, op)
}

func (d *Drive) name(op Op) error {
	dir, name, err := d.parent(op.Path)
	if err != nil {
		return err
	}
	t := d.Tree
	switch op.Kind {
	case Create:
		f, _, err := t.Create(ctx, dir, name, 0o644, os.O_WRONLY, tree.Owner{})
		if err == nil {
			f.Release()
		}
		return err
	case Mkfifo:
		_, err = t.Mknod(ctx, dir, name, unix.S_IFIFO|0o644, 0, tree.Owner{})
	case Mkdir:
		_, err = t.Mkdir(ctx, dir, name, 0o755, tree.Owner{})
	case Symlink:
		_, err = t.Symlink(ctx, dir, name, op.To, tree.Owner{})
	case Unlink, Rmdir:
		a, lerr := t.Lookup(ctx, dir, name)
		if lerr != nil {
			return lerr
		}
		if op.Kind == Unlink {
			err = t.Unlink(ctx, dir, name)
		} else {
			err = t.Rmdir(ctx, dir, name)
		}
		d.forget(a, err)
	}
	return err
}

// forget tells the tree what the kernel would, once nobody has the file open.
func (d *Drive) forget(a tree.Attr, err error) {
	if err != nil {
		return
	}
	for _, h := range d.handles {
		if h.f.Ino() == a.Ino {
			return
		}
	}
	d.Tree.Forget(a.Ino)
}

func (d *Drive) link(op Op) error {
	a, err := d.find(op.Path)
	if err != nil {
		return err
	}
	dir, name, err := d.parent(op.To)
	if err != nil {
		return err
	}
	if _, err := d.Tree.Lookup(ctx, dir, name); err == nil {
		return unix.EEXIST
	}
	_, err = d.Tree.Link(ctx, a.Ino, dir, name)
	return err
}

func (d *Drive) rename(op Op) error {
	dir, name, err := d.parent(op.Path)
	if err != nil {
		return err
	}
	td, tname, err := d.parent(op.To)
	if err != nil {
		return err
	}
	a, err := d.Tree.Lookup(ctx, dir, name)
	if err != nil {
		return err
	}
	v, verr := d.Tree.Lookup(ctx, td, tname)
	switch { // what the kernel checks by itself
	case verr == nil && op.Kind == NoReplace:
		return unix.EEXIST
	case verr != nil && op.Kind == Exchange:
		return unix.ENOENT
	case a.Mode&unix.S_IFMT == unix.S_IFDIR && op.To != op.Path && within(op.To, op.Path):
		return unix.EINVAL
	case op.To != op.Path && within(op.Path, op.To) && op.Kind != Exchange:
		return unix.ENOTEMPTY
	}
	flags := map[Kind]uint32{NoReplace: unix.RENAME_NOREPLACE, Exchange: unix.RENAME_EXCHANGE}[op.Kind]
	err = d.Tree.Rename(ctx, dir, name, td, tname, flags)
	if op.Kind == Rename && verr == nil && v.Ino != a.Ino {
		d.forget(v, err)
	}
	return err
}

func (d *Drive) setAttr(op Op) error {
	a, err := d.find(op.Path)
	if err != nil {
		return err
	}
	typ := a.Mode & unix.S_IFMT
	switch {
	case typ == unix.S_IFLNK:
		return unix.ENOENT
	case op.Kind == Chmod:
		_, err = d.Tree.SetAttr(ctx, a.Ino, tree.SetAttr{Mode: &op.Mode})
	case op.Kind == Touch:
		_, err = d.Tree.SetAttr(ctx, a.Ino, tree.SetAttr{Mtime: &tree.Time{Sec: op.Len}})
	case typ != unix.S_IFREG && typ != unix.S_IFDIR:
		return unix.EPERM
	case op.Kind == SetXattr:
		err = d.Tree.SetXattr(ctx, a.Ino, op.Name, op.Value(), 0)
	default:
		err = d.Tree.RemoveXattr(ctx, a.Ino, op.Name)
	}
	return err
}

// content does an operation on what is in an open file.
func (d *Drive) content(h *openFile, op Op) ([]byte, error) {
	var err error
	switch op.Kind {
	case Write, WriteTo, Append:
		err = d.write(h, op.Off, op.Bytes())
	case Store, StoreTo:
		err = d.store(h, op)
	case TruncateOpen:
		_, err = d.Tree.SetAttr(ctx, h.f.Ino(), tree.SetAttr{Size: &op.Len, File: h.f})
	case Punch, PunchOpen:
		err = h.f.Allocate(ctx, op.Off, op.Len, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
	case Zero:
		err = h.f.Allocate(ctx, op.Off, op.Len, unix.FALLOC_FL_ZERO_RANGE)
	case Allocate:
		err = h.f.Allocate(ctx, op.Off, op.Len, 0)
	case Read, ReadFrom:
		p := make([]byte, op.Len)
		n, err := h.f.ReadAt(ctx, p, op.Off)
		return p[:n], err
	case Fsync, FsyncOpen:
		err = h.f.Sync(ctx, false)
	case Fdatasync:
		err = h.f.Sync(ctx, true)
	}
	return nil, err
}

// copy has the tree copy a whole file, or reads and writes, as the kernel does.
func (d *Drive) copy(from tree.Attr, op Op) error {
	to, err := d.file(op.To)
	if err != nil {
		return err
	}
	src, err := d.Tree.Open(ctx, from.Ino, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer src.Release()
	dst, err := d.Tree.Open(ctx, to.Ino, os.O_WRONLY)
	if err != nil {
		return err
	}
	defer dst.Release()
	p := make([]byte, min(op.Len, from.Size))
	if from.Ino == to.Ino && op.Off < int64(len(p)) {
		return unix.EINVAL
	}
	if op.Off == 0 {
		if _, err := dst.CopyWhole(src, op.Len, false); !errors.Is(err, tree.ErrUnsupported) {
			return err
		}
	}
	n, err := src.ReadAt(ctx, p, 0)
	if n == 0 || err != nil {
		return err
	}
	return d.write(&openFile{f: dst}, op.Off, p[:n])
}

// write writes as the kernel would: past the daemon where it may.
func (d *Drive) write(h *openFile, off int64, p []byte) error {
	if fd, ok := h.f.Passthrough(); ok {
		if h.flags&os.O_APPEND != 0 {
			a, err := d.Tree.Attr(ctx, h.f.Ino())
			if err != nil {
				return err
			}
			off = a.Size
		}
		_, err := d.Backing(fd).WriteAt(p, off)
		return err
	}
	_, err := h.f.WriteAt(ctx, p, off, false)
	return err
}

// store writes through a mapping: within the file, whatever its handle says.
func (d *Drive) store(h *openFile, op Op) error {
	a, err := d.Tree.Attr(ctx, h.f.Ino())
	if err != nil {
		return err
	}
	end := min(op.Off+op.Len, a.Size)
	if op.Off >= end {
		return nil
	}
	return d.write(&openFile{f: h.f}, op.Off, op.Bytes()[:end-op.Off])
}

func (d *Drive) onHandle(op Op) ([]byte, error) {
	h, open := d.handles[op.Handle]
	switch {
	case op.Kind == Open && open:
		return nil, nil
	case op.Kind == Open:
		return nil, d.open(op)
	case op.Kind == Tmpfile:
		a, err := d.find(op.Path)
		if err == nil {
			err = walkable(a)
		}
		if err != nil || open {
			return nil, err
		}
		f, _, err := d.Tree.Tmpfile(ctx, a.Ino, 0o644, os.O_RDWR, tree.Owner{})
		if err == nil {
			d.keep(op.Handle, &openFile{f, os.O_RDWR, true})
		}
		return nil, err
	case !open:
		return nil, unix.EBADF
	case op.Kind == Close:
		return nil, d.close(op.Handle, h)
	case op.Kind == LinkOpen:
		return nil, d.linkOpen(op, h)
	}
	if err := mayUse(h.flags, op.Kind); err != nil {
		return nil, err
	}
	return d.content(h, op)
}

// mayUse is what the kernel says of an operation on a handle that was opened
// for another.
func mayUse(flags int, k Kind) error {
	mode := flags & (os.O_RDONLY | os.O_WRONLY | os.O_RDWR)
	switch {
	case k == FsyncOpen:
		return nil
	case k == ReadFrom && mode == os.O_WRONLY:
		return unix.EBADF
	case k == TruncateOpen && mode == os.O_RDONLY:
		return unix.EINVAL
	case k == StoreTo && mode != os.O_RDWR:
		return unix.EACCES
	case k != ReadFrom && mode == os.O_RDONLY:
		return unix.EBADF
	}
	return nil
}

func (d *Drive) keep(i int, h *openFile) {
	if d.handles == nil {
		d.handles = map[int]*openFile{}
	}
	d.handles[i] = h
}

func (d *Drive) open(op Op) error {
	dir, name, err := d.parent(op.Path)
	if err != nil {
		return err
	}
	a, err := d.file(op.Path)
	var f *tree.File
	switch {
	case err == nil:
		f, err = d.Tree.Open(ctx, a.Ino, op.Flags)
	case errnoOf(err) == unix.ENOENT && op.Flags&os.O_CREATE != 0:
		f, _, err = d.Tree.Create(ctx, dir, name, 0o644, op.Flags, tree.Owner{})
	}
	if err == nil {
		d.keep(op.Handle, &openFile{f: f, flags: op.Flags})
	}
	return err
}

func (d *Drive) close(i int, h *openFile) error {
	ino := h.f.Ino()
	h.f.Release()
	delete(d.handles, i)
	for _, o := range d.handles {
		if o.f.Ino() == ino {
			return nil
		}
	}
	if a, err := d.Tree.Attr(ctx, ino); err == nil && a.Nlink == 0 {
		d.Tree.Forget(ino)
	}
	return nil
}

// CloseAll closes what is open.
func (d *Drive) CloseAll() {
	for i, h := range d.handles {
		_ = d.close(i, h)
	}
}

func (d *Drive) linkOpen(op Op, h *openFile) error {
	dir, name, err := d.parent(op.To)
	if err != nil {
		return err
	}
	if _, err := d.Tree.Lookup(ctx, dir, name); err == nil {
		return unix.EEXIST
	}
	a, err := d.Tree.Attr(ctx, h.f.Ino())
	if err != nil {
		return err
	}
	if a.Nlink == 0 && !h.pinned {
		return unix.ENOENT
	}
	if _, err = d.Tree.Link(ctx, h.f.Ino(), dir, name); err == nil {
		h.pinned = false
	}
	return err
}

// List implements Target.
func (d *Drive) List() (Listing, error) {
	l := Listing{}
	a, err := d.Tree.Attr(ctx, tree.Root)
	if err == nil {
		err = d.list("", a, l)
	}
	return l, err
}

func (d *Drive) list(path string, a tree.Attr, l Listing) error {
	e := Entry{File: uint64(a.Ino), Mode: a.Mode, Nlink: a.Nlink, Size: a.Size, Mtime: a.Mtime.Sec}
	names, err := d.Tree.ListXattr(ctx, a.Ino)
	for _, name := range names {
		v, verr := d.Tree.GetXattr(ctx, a.Ino, name)
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[name], err = string(v), errors.Join(err, verr)
	}
	switch a.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Size = 0
		err = errors.Join(err, d.listDir(path, a, l))
	case unix.S_IFLNK:
		var lerr error
		e.Target, lerr = d.Tree.Readlink(ctx, a.Ino)
		err = errors.Join(err, lerr)
	case unix.S_IFREG:
		var rerr error
		e.Content, rerr = d.readAll(a)
		err = errors.Join(err, rerr)
	}
	l[path] = e
	return err
}

func (d *Drive) listDir(path string, a tree.Attr, l Listing) error {
	var all []tree.DirEntry
	err := d.Tree.ReadDir(ctx, a.Ino, 0, func(e tree.DirEntry) bool { all = append(all, e); return true })
	for _, e := range all {
		err = errors.Join(err, d.list(Join(path, e.Name), e.Attr, l))
	}
	return err
}

func (d *Drive) readAll(a tree.Attr) ([]byte, error) {
	f, err := d.Tree.Open(ctx, a.Ino, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Release()
	p := make([]byte, a.Size+1)
	n, err := f.ReadAt(ctx, p, 0)
	return p[:n], err
}
