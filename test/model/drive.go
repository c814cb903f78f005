package model

import (
	"context"
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// Drive does operations on a tree of a drive, in process, as the kernel would
// through the mount: it resolves paths, and writes passed-through files itself. It
// is safe for concurrent use, but for closing a handle that is in use.
type Drive struct {
	Tree *tree.Tree
	// Backing finds the backing file behind a descriptor that the tree gives
	// out for passing through.
	Backing func(fd int) Writer
	// Maintain does what programs do not see: from Commit on.
	Maintain func(Op) error

	mu      sync.Mutex // guards both
	handles map[int]*openFile
	held    map[tree.Ino]bool // see mayMap
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
		return nil, d.Tree.SyncAll()
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
	case Map:
		return nil, d.mapFile(op)
	case StoreMapped, LoadMapped, Unmap:
		return d.onHandle(op.mapped())
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
	d.mayMap(f, fl)
	return d.content(&openFile{f: f, flags: fl}, op)
}
