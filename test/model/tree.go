package model

import (
	"bytes"
	"maps"
	"os"
	"strings"

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

type handle struct {
	node   *Node
	flags  int
	pinned bool // opened without a name
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

func split(path string) []string {
	if path == "" {
		return nil
	}
	return strings.Split(path, "/")
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

// Split divides a path into its directory and its last name.
func Split(path string) (dir, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:max(i, 0)], path[i+1:]
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

// copy copies from the beginning of a file into another one, or further behind
// in the same.
func (t *Tree) copy(from *Node, op Op) unix.Errno {
	to, err := t.file(op.To)
	if err != 0 {
		return err
	}
	p := from.Content[:min(op.Len, int64(len(from.Content)))]
	if from == to && op.Off < int64(len(p)) {
		return unix.EINVAL
	}
	to.put(op.Off, p)
	return 0
}

// FileOf is the number of the file that an operation is about; 0 if there is
// none.
func (t *Tree) FileOf(op Op) uint64 {
	if op.Kind >= Open && op.Kind <= LinkOpen {
		if h, open := t.handles[op.Handle]; open {
			return h.node.ID
		}
		return 0
	}
	if n, err := t.Find(op.Path); err == 0 {
		return n.ID
	}
	return 0
}

// Adopt makes the contents of files those of a listing, if that is as the tree
// in all else, and each content is as in one of two others or mixed of both.
func (t *Tree) Adopt(l, a, b Listing) bool {
	own := t.Listing()
	if len(own) != len(l) {
		return false
	}
	for path, e := range own {
		got, there := l[path]
		if !there || got.DifferApart(e) != nil || e.IsFile() && !mixed(got.Content, a.content(e.File), b.content(e.File)) {
			return false
		}
	}
	for path, e := range own {
		if n, err := t.Find(path); err == 0 && e.IsFile() {
			n.Content = bytes.Clone(l[path].Content)
		}
	}
	return true
}

func (l Listing) content(file uint64) []byte {
	for _, e := range l {
		if e.File == file {
			return e.Content
		}
	}
	return nil
}

// mixed reports whether each byte is that of one of two, or of the end of one.
func mixed(p, a, b []byte) bool {
	at := func(v []byte, i int) byte {
		if i < len(v) {
			return v[i]
		}
		return 0
	}
	for i, x := range p {
		if x != at(a, i) && x != at(b, i) {
			return false
		}
	}
	return len(p) >= min(len(a), len(b)) && len(p) <= max(len(a), len(b))
}

// CloseAll closes every handle, as the end of the programs does.
func (t *Tree) CloseAll() { clear(t.handles) }

// Opened is how many handles are open.
func (t *Tree) Opened() int { return len(t.handles) }

// file finds a regular file to be opened.
func (t *Tree) file(path string) (*Node, unix.Errno) {
	n, err := t.Find(path)
	switch {
	case err != 0:
		return nil, err
	case n.IsDir():
		return nil, unix.EISDIR
	case n.isLink():
		return nil, unix.ELOOP
	case !n.IsFile():
		return nil, unix.ENXIO
	}
	return n, 0
}

func (t *Tree) newNode(mode uint32) *Node {
	t.last++
	n := &Node{ID: t.last, Mode: mode, Nlink: 1}
	if n.IsDir() {
		n.Nlink, n.kids = 2, map[string]*Node{}
	}
	return n
}

func (t *Tree) add(op Op) unix.Errno {
	var n *Node
	path := op.Path
	if op.Kind == Link {
		var err unix.Errno
		if n, err = t.Find(op.Path); err != 0 {
			return err
		}
		path = op.To
	}
	d, name, err := t.parent(path)
	if err != 0 {
		return err
	}
	if _, there := d.kids[name]; there {
		return unix.EEXIST
	}
	switch op.Kind {
	case Create:
		n = t.newNode(unix.S_IFREG | 0o644)
	case Mkfifo:
		n = t.newNode(unix.S_IFIFO | 0o644)
	case Symlink:
		n = t.newNode(unix.S_IFLNK | 0o777)
		n.Target = op.To
	case Mkdir:
		n = t.newNode(unix.S_IFDIR | 0o755)
		d.Nlink++
	case Link:
		if n.IsDir() {
			return unix.EPERM
		}
		n.Nlink++
	}
	d.enter(name, n)
	return 0
}

// enter puts a name into a directory, or another file under it.
func (n *Node) enter(name string, kid *Node) {
	n.kids[name] = kid
	n.Mtime = 0
}

func (t *Tree) remove(op Op) unix.Errno {
	d, name, err := t.parent(op.Path)
	if err != 0 {
		return err
	}
	n, there := d.kids[name]
	if !there {
		return unix.ENOENT
	}
	if err := removable(n, op.Kind == Rmdir); err != 0 {
		return err
	}
	d.drop(name, n)
	return 0
}

func removable(n *Node, asDir bool) unix.Errno {
	switch {
	case asDir && !n.IsDir():
		return unix.ENOTDIR
	case !asDir && n.IsDir():
		return unix.EISDIR
	case asDir && len(n.kids) > 0:
		return unix.ENOTEMPTY
	}
	return 0
}

func (n *Node) drop(name string, kid *Node) {
	delete(n.kids, name)
	n.Mtime = 0
	if kid.IsDir() {
		n.Nlink--
		kid.Nlink = 0
	} else {
		kid.Nlink--
	}
}

// within reports whether path is dir or lies below it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

func (t *Tree) rename(op Op) unix.Errno {
	d, name, err := t.parent(op.Path)
	if err != 0 {
		return err
	}
	td, tname, err := t.parent(op.To)
	if err != 0 {
		return err
	}
	n, there := d.kids[name]
	if !there {
		return unix.ENOENT
	}
	v := td.kids[tname]
	switch {
	case v != nil && op.Kind == NoReplace:
		return unix.EEXIST
	case v == nil && op.Kind == Exchange:
		return unix.ENOENT
	case n.IsDir() && op.To != op.Path && within(op.To, op.Path):
		return unix.EINVAL
	case op.To != op.Path && within(op.Path, op.To) && op.Kind == Exchange:
		return unix.EINVAL
	case op.To != op.Path && within(op.Path, op.To):
		return unix.ENOTEMPTY
	case n == v:
		return 0
	}
	if op.Kind == Exchange {
		t.swap(d, td, name, tname)
		return 0
	}
	if v != nil {
		switch {
		case n.IsDir() && !v.IsDir():
			return unix.ENOTDIR
		case !n.IsDir() && v.IsDir():
			return unix.EISDIR
		}
		if err := removable(v, v.IsDir()); err != 0 {
			return err
		}
		td.drop(tname, v)
	}
	delete(d.kids, name)
	d.Mtime = 0
	td.enter(tname, n)
	if n.IsDir() {
		d.Nlink--
		td.Nlink++
	}
	return 0
}

func (t *Tree) swap(d, td *Node, name, tname string) {
	n, v := d.kids[name], td.kids[tname]
	d.enter(name, v)
	td.enter(tname, n)
	if n.IsDir() != v.IsDir() {
		from, to := d, td
		if v.IsDir() {
			from, to = td, d
		}
		from.Nlink--
		to.Nlink++
	}
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
		n.Mtime = op.Len
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

// content does an operation on what is in a regular file.
func (n *Node) content(op Op) Result {
	size := int64(len(n.Content))
	switch op.Kind {
	case Write, WriteTo:
		n.put(op.Off, op.Bytes())
	case Append:
		n.put(size, op.Bytes())
	case Store, StoreTo:
		// A mapping does not make a file longer.
		if end := min(op.Off+op.Len, size); op.Off < end {
			n.put(op.Off, op.Bytes()[:end-op.Off])
		}
	case Truncate, TruncateOpen:
		n.resize(op.Len)
		n.Mtime = 0
	case Empty:
		n.resize(0)
		n.Mtime = 0
	case Punch, PunchOpen:
		n.clear(op.Off, min(op.Off+op.Len, size))
	case Zero:
		n.resize(max(size, op.Off+op.Len))
		n.clear(op.Off, op.Off+op.Len)
	case Allocate:
		n.resize(max(size, op.Off+op.Len))
		n.Mtime = 0
	case Read, ReadFrom:
		return Result{Data: bytes.Clone(n.Content[min(op.Off, size):min(op.Off+op.Len, size)])}
	}
	return Result{}
}

// put writes into a copy of the content.
func (n *Node) put(off int64, p []byte) {
	if len(p) == 0 {
		return
	}
	b := make([]byte, max(int64(len(n.Content)), off+int64(len(p))))
	copy(b, n.Content)
	copy(b[off:], p)
	n.Content, n.Mtime = b, 0
}

func (n *Node) resize(size int64) {
	b := make([]byte, size)
	copy(b, n.Content)
	n.Content = b
}

func (n *Node) clear(from, to int64) {
	n.Mtime = 0
	if from >= to {
		return
	}
	b := bytes.Clone(n.Content)
	clear(b[from:to])
	n.Content = b
}

func (t *Tree) onHandle(op Op) Result {
	h, open := t.handles[op.Handle]
	switch {
	case op.Kind == Open:
		return Result{Errno: t.open(op)}
	case op.Kind == Tmpfile:
		d, err := t.Find(op.Path)
		if err == 0 {
			err = d.walkable()
		}
		if err == 0 && !open {
			n := t.newNode(unix.S_IFREG | 0o644)
			n.Nlink = 0
			t.handles[op.Handle] = &handle{n, os.O_RDWR, true}
		}
		return Result{Errno: err}
	case !open:
		return Result{Errno: unix.EBADF}
	case op.Kind == Close:
		delete(t.handles, op.Handle)
		return Result{}
	case op.Kind == FsyncOpen:
		return Result{}
	case op.Kind == LinkOpen:
		return Result{Errno: t.linkOpen(op, h)}
	case op.Kind == ReadFrom && h.flags&3 == os.O_WRONLY:
		return Result{Errno: unix.EBADF}
	case op.Kind == TruncateOpen && h.flags&3 == os.O_RDONLY:
		return Result{Errno: unix.EINVAL}
	case op.Kind == StoreTo && h.flags&3 != os.O_RDWR:
		return Result{Errno: unix.EACCES}
	case op.Kind != ReadFrom && h.flags&3 == os.O_RDONLY:
		return Result{Errno: unix.EBADF}
	case op.Kind == WriteTo && h.flags&os.O_APPEND != 0:
		op.Kind = Append
	}
	return h.node.content(op)
}

func (t *Tree) open(op Op) unix.Errno {
	if _, open := t.handles[op.Handle]; open {
		return 0 // the other stays
	}
	n, err := t.file(op.Path)
	if err == unix.ENOENT && op.Flags&os.O_CREATE != 0 {
		if err = t.add(Op{Kind: Create, Path: op.Path}); err == 0 {
			n, err = t.file(op.Path)
		}
	}
	if err == unix.EISDIR && op.Flags&3 == os.O_RDONLY && op.Flags&(os.O_CREATE|os.O_TRUNC) == 0 {
		return unix.EISDIR // the drivers open files only
	}
	if err != 0 {
		return err
	}
	if op.Flags&os.O_TRUNC != 0 && op.Flags&3 != os.O_RDONLY {
		n.content(Op{Kind: Empty})
	}
	t.handles[op.Handle] = &handle{node: n, flags: op.Flags}
	return 0
}

func (t *Tree) linkOpen(op Op, h *handle) unix.Errno {
	d, name, err := t.parent(op.To)
	switch {
	case err != 0:
		return err
	case d.kids[name] != nil:
		return unix.EEXIST
	case h.node.Nlink == 0 && !h.pinned:
		return unix.ENOENT
	}
	h.pinned = false // what loses its name again stays lost
	h.node.Nlink++
	d.enter(name, h.node)
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

// Join makes a path of a directory's and a name.
func Join(dir, name string) string {
	if dir == "" {
		return name
	}
	return dir + "/" + name
}
