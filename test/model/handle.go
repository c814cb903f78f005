package model

import (
	"os"

	"golang.org/x/sys/unix"
)

type handle struct {
	node   *Node
	flags  int
	pinned bool // opened without a name
}

// CloseAll closes every handle, as the end of the programs does.
func (t *Tree) CloseAll() { clear(t.handles) }

// Nameless is what is in the open files that have no name, by their numbers.
func (t *Tree) Nameless() map[uint64][]byte {
	var out map[uint64][]byte
	for _, h := range t.handles {
		if h.node.Nlink > 0 {
			continue
		}
		if out == nil {
			out = map[uint64][]byte{}
		}
		out[h.node.ID] = h.node.Content
	}
	return out
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

// exclusive are the flags by which a file is opened only if it is made.
const exclusive = os.O_CREATE | os.O_EXCL

func (t *Tree) open(op Op) unix.Errno {
	if _, open := t.handles[op.Handle]; open {
		return 0 // the other stays
	}
	n, err := t.file(op.Path)
	if _, there := t.Find(op.Path); there == 0 && op.Flags&exclusive == exclusive {
		return unix.EEXIST
	}
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

// mapFile maps a file; a mapping of the same number stays.
func (t *Tree) mapFile(op Op) unix.Errno {
	if op.Path != "" {
		n, err := t.file(op.Path)
		if _, there := t.handles[op.Handle+mappings]; err == 0 && !there {
			t.handles[op.Handle+mappings] = &handle{node: n, flags: os.O_RDWR}
		}
		return err
	}
	h, open := t.handles[op.Handle]
	switch {
	case !open:
		return unix.EBADF
	case h.flags&3 != os.O_RDWR:
		return unix.EACCES
	}
	if _, there := t.handles[op.Handle+mappings]; !there {
		t.handles[op.Handle+mappings] = &handle{node: h.node, flags: os.O_RDWR}
	}
	return 0
}

func (t *Tree) isMapped(n *Node) bool {
	for i, h := range t.handles {
		if i >= mappings && h.node == n {
			return true
		}
	}
	return false
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
