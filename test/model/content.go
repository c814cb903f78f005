package model

import (
	"bytes"

	"golang.org/x/sys/unix"
)

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
