package model

import (
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

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
