package tree

import (
	"context"
	"errors"
	"strings"
)

// firstCookie is the cookie of a directory's first entry: "." and ".." come
// before it.
const firstCookie = 3

func checkName(name string) error {
	switch {
	case len(name) > NameMax:
		return ErrNameTooLong
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return ErrInvalid
	}
	return nil
}

// directory returns a loaded directory with a reference. The caller holds no
// lock.
func (t *Tree) directory(ctx context.Context, ino Ino) (*inode, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return nil, err
	}
	in.mu.Lock()
	dir, loaded, gone := in.row.isDir(), in.row.has(flagLoaded), in.orphan
	in.mu.Unlock()
	if !dir {
		t.release(in)
		return nil, ErrNotDir
	}
	if loaded || gone {
		return in, nil
	}
	if err := t.load(ctx, in); err != nil {
		t.release(in)
		return nil, err
	}
	return in, nil
}

// Lookup finds a name.
func (t *Tree) Lookup(ctx context.Context, dir Ino, name string) (Attr, error) {
	if len(name) > NameMax {
		return Attr{}, ErrNameTooLong
	}
	d, err := t.directory(ctx, dir)
	if err != nil {
		return Attr{}, err
	}
	defer t.release(d)
	e, err := t.lockedEntry(d, name)
	if err != nil {
		return Attr{}, err
	}
	a, err := t.Attr(ctx, e.ino)
	if errors.Is(err, ErrStale) {
		return Attr{}, ErrNotFound // removed meanwhile
	}
	return a, err
}

// lockedEntry is findEntry for who does not hold d.mu.
func (t *Tree) lockedEntry(d *inode, name string) (entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return t.findEntry(d, name)
}

// Parent returns the directory above dir; the root is its own.
func (t *Tree) Parent(ctx context.Context, dir Ino) (Ino, error) {
	in, err := t.acquire(ctx, dir)
	if err != nil {
		return 0, err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if dir == Root || in.row.parent == 0 {
		return Root, nil
	}
	return in.row.parent, nil
}

// Readlink returns where a symbolic link points to.
func (t *Tree) Readlink(ctx context.Context, ino Ino) (string, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return "", err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.mode&modeType != modeLnk {
		return "", ErrInvalid
	}
	b, err := t.inlineContent(in)
	return string(b), err
}
