package model

import "golang.org/x/sys/unix"

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
