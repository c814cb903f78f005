package model

import (
	"maps"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

type openFile struct {
	f      *tree.File
	flags  int
	pinned bool
}

func (d *Drive) onHandle(op Op) ([]byte, error) {
	h, open := d.handle(op.Handle)
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

func (d *Drive) handle(i int) (*openFile, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	h, open := d.handles[i]
	return h, open
}

func (d *Drive) keep(i int, h *openFile) {
	d.mu.Lock()
	defer d.mu.Unlock()
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
	_, missing := d.find(op.Path)
	a, err := d.file(op.Path)
	var f *tree.File
	switch {
	case missing == nil && op.Flags&exclusive == exclusive:
		return unix.EEXIST
	case err == nil:
		f, err = d.Tree.Open(ctx, a.Ino, op.Flags)
	case errnoOf(err) == unix.ENOENT && op.Flags&os.O_CREATE != 0:
		f, _, err = d.Tree.Create(ctx, dir, name, 0o644, op.Flags, tree.Owner{})
	}
	if err == nil {
		d.mayMap(f, op.Flags)
		d.keep(op.Handle, &openFile{f: f, flags: op.Flags})
	}
	return err
}

// mapFile keeps a handle of its own for a mapping, as the daemon does for as long as
// there is one.
func (d *Drive) mapFile(op Op) error {
	var ino tree.Ino
	if op.Path != "" {
		a, err := d.file(op.Path)
		if err != nil {
			return err
		}
		ino = a.Ino
	} else {
		h, open := d.handle(op.Handle)
		if !open {
			return unix.EBADF
		}
		if err := mayUse(h.flags, StoreTo); err != nil {
			return err
		}
		ino = h.f.Ino()
	}
	if _, there := d.handle(op.Handle + mappings); there {
		return nil
	}
	f, err := d.Tree.Open(ctx, ino, os.O_RDWR)
	if err == nil {
		d.keep(op.Handle+mappings, &openFile{f: f, flags: os.O_RDWR})
	}
	return err
}

func (d *Drive) close(i int, h *openFile) error {
	ino := h.f.Ino()
	h.f.Release()
	if d.drop(i, ino) {
		return nil
	}
	if a, err := d.Tree.Attr(ctx, ino); err == nil && a.Nlink == 0 {
		d.Tree.Forget(ino)
	}
	return nil
}

// drop ends a handle and reports whether there is another of the same file.
func (d *Drive) drop(i int, ino tree.Ino) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.handles, i)
	for _, o := range d.handles {
		if o.f.Ino() == ino {
			return true
		}
	}
	return false
}

// mayMap takes note of a file that was opened so that it can be mapped, while the kernel
// alone writes it: the tree holds it open.
func (d *Drive) mayMap(f *tree.File, flags int) {
	if _, passed := f.Passthrough(); !passed || flags&os.O_RDWR == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.held == nil {
		d.held = map[tree.Ino]bool{}
	}
	d.held[f.Ino()] = true
}

// Alone is which files the kernel writes alone, and which the tree may hold open as such.
func (d *Drive) Alone() map[tree.Ino]bool {
	d.mu.Lock()
	all, out := maps.Clone(d.handles), maps.Clone(d.held)
	d.mu.Unlock()
	if out == nil {
		out = map[tree.Ino]bool{}
	}
	for _, h := range all {
		if _, passed := h.f.Passthrough(); passed && h.flags&(os.O_WRONLY|os.O_RDWR) != 0 {
			out[h.f.Ino()] = true
		}
	}
	return out
}

// CloseAll closes what is open.
func (d *Drive) CloseAll() {
	d.mu.Lock()
	all := maps.Clone(d.handles)
	d.mu.Unlock()
	for i, h := range all {
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
