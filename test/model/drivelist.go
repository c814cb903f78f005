package model

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

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
