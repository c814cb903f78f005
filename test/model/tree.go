package model

import (
	"maps"

	"golang.org/x/sys/unix"
)

// Tree is the filesystem in memory. The zero value is not ready; see New.
type Tree struct {
	root    *Node
	last    uint64
	handles map[int]*handle
}

// Node is a file or directory of a Tree.
type Node struct {
	ID      uint64
	Mode    uint32
	Nlink   uint32
	Content []byte // never changed in place
	Target  string
	Xattrs  map[string]string // never changed in place
	Mtime   int64             // as set by Touch; 0 if written since
	kids    map[string]*Node
}

// New returns an empty Tree.
func New() *Tree {
	t := &Tree{last: 1, handles: map[int]*handle{}}
	t.root = &Node{ID: 1, Mode: unix.S_IFDIR | 0o755, Nlink: 2, kids: map[string]*Node{}}
	return t
}

// Clone returns a copy that goes its own way.
func (t *Tree) Clone() *Tree {
	c := &Tree{last: t.last, handles: map[int]*handle{}}
	seen := map[*Node]*Node{}
	c.root = t.root.clone(seen)
	for i, h := range t.handles {
		c.handles[i] = &handle{h.node.clone(seen), h.flags, h.pinned}
	}
	return c
}

func (n *Node) clone(seen map[*Node]*Node) *Node {
	if c, ok := seen[n]; ok {
		return c
	}
	c := *n
	seen[n] = &c
	if n.kids != nil {
		c.kids = make(map[string]*Node, len(n.kids))
		for name, k := range n.kids {
			c.kids[name] = k.clone(seen)
		}
	}
	return &c
}

// IsDir reports whether the node is a directory.
func (n *Node) IsDir() bool { return n.Mode&unix.S_IFMT == unix.S_IFDIR }

// IsFile reports whether the node is a regular file.
func (n *Node) IsFile() bool { return n.Mode&unix.S_IFMT == unix.S_IFREG }

func (n *Node) isLink() bool { return n.Mode&unix.S_IFMT == unix.S_IFLNK }

// Find returns the node at a path; symbolic links are dangling.
func (t *Tree) Find(path string) (*Node, unix.Errno) {
	n := t.root
	for _, name := range split(path) {
		if err := n.walkable(); err != 0 {
			return nil, err
		}
		k, ok := n.kids[name]
		if !ok {
			return nil, unix.ENOENT
		}
		n = k
	}
	return n, 0
}

func (n *Node) walkable() unix.Errno {
	switch {
	case n.isLink():
		return unix.ENOENT
	case !n.IsDir():
		return unix.ENOTDIR
	}
	return 0
}

// parent returns the directory that a path's last name is in.
func (t *Tree) parent(path string) (*Node, string, unix.Errno) {
	dir, name := Split(path)
	d, err := t.Find(dir)
	if err == 0 {
		err = d.walkable()
	}
	return d, name, err
}

// Do does an operation.
func (t *Tree) Do(op Op) Result {
	switch op.Kind {
	case Create, Mkdir, Symlink, Mkfifo, Link:
		return Result{Errno: t.add(op)}
	case Unlink, Rmdir:
		return Result{Errno: t.remove(op)}
	case Rename, NoReplace, Exchange:
		return Result{Errno: t.rename(op)}
	case Sync, Commit, Evict, Forget, Restart:
		return Result{}
	case Chmod, Touch, SetXattr, RemoveXattr:
		return Result{Errno: t.setAttr(op)}
	case SyncDir:
		n, err := t.Find(op.Path)
		if err == 0 && !n.IsDir() {
			err = unix.ENOTDIR
			if n.isLink() {
				err = unix.ELOOP
			}
		}
		return Result{Errno: err}
	case Open, Close, WriteTo, ReadFrom, TruncateOpen, PunchOpen, StoreTo, FsyncOpen, Tmpfile, LinkOpen:
		return t.onHandle(op)
	case Map:
		return Result{Errno: t.mapFile(op)}
	case StoreMapped, LoadMapped, Unmap:
		return t.onHandle(op.mapped())
	}
	n, err := t.file(op.Path)
	if err != 0 {
		return Result{Errno: err}
	}
	if op.Kind == Copy {
		return Result{Errno: t.copy(n, op)}
	}
	return n.content(op)
}

func (t *Tree) newNode(mode uint32) *Node {
	t.last++
	n := &Node{ID: t.last, Mode: mode, Nlink: 1}
	if n.IsDir() {
		n.Nlink, n.kids = 2, map[string]*Node{}
	}
	return n
}

func (t *Tree) setAttr(op Op) unix.Errno {
	n, err := t.Find(op.Path)
	if err != 0 {
		return err
	}
	switch {
	case n.isLink():
		return unix.ENOENT // it is followed
	case op.Kind == Chmod:
		n.Mode = n.Mode&unix.S_IFMT | op.Mode&0o7777
	case op.Kind == Touch:
		if n.Mtime = op.Len; t.isMapped(n) { // what was stored before may count as written later
			n.Mtime = 0
		}
	case !n.IsFile() && !n.IsDir():
		return unix.EPERM // user attributes are for these
	case op.Kind == SetXattr:
		n.Xattrs = maps.Clone(n.Xattrs)
		if n.Xattrs == nil {
			n.Xattrs = map[string]string{}
		}
		n.Xattrs[op.Name] = string(op.Value())
	default:
		if _, there := n.Xattrs[op.Name]; !there {
			return unix.ENODATA
		}
		n.Xattrs = maps.Clone(n.Xattrs)
		delete(n.Xattrs, op.Name)
	}
	return 0
}

// List implements Target.
func (t *Tree) List() (Listing, error) { return t.Listing(), nil }

// Listing tells all that can be seen.
func (t *Tree) Listing() Listing {
	l := Listing{}
	t.root.list("", l)
	return l
}

func (n *Node) list(path string, l Listing) {
	l[path] = Entry{File: n.ID, Mode: n.Mode, Nlink: n.Nlink, Size: int64(len(n.Content) + len(n.Target)), Mtime: n.Mtime,
		Target: n.Target, Xattrs: n.Xattrs, Content: n.Content}
	for name, k := range n.kids {
		k.list(Join(path, name), l)
	}
}
