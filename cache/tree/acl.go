package tree

import (
	"context"
	"fmt"
	"maps"

	"skep/cache/acl"
)

// Access control lists are kept as the extended attributes that they are. What
// a mode can say stands in the mode: a list that says no more is not kept, and
// the two always agree. The kernel decides by them who may do what.

// SetACL sets the list of a kind, acl.Access or acl.Default, and the mode that
// stands for it. KillSGID takes set-group-id from the file: who sets the list
// is not of its group.
func (t *Tree) SetACL(ctx context.Context, ino Ino, kind string, value []byte, killSGID bool) error {
	l, err := acl.Parse(value)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return t.changeXattrs(ctx, ino, func(r *row, m map[string][]byte) error {
		if kind == acl.Default {
			if !r.isDir() {
				return ErrAccess
			}
			m[kind] = l.Bytes()
			return nil
		}
		r.mode = r.mode&^0o777 | l.Mode()
		if killSGID {
			r.mode &^= modeSGID
		}
		keepList(m, l)
		return nil
	})
}

// RemoveACL takes a list away; the mode stays. That there is none is no error.
func (t *Tree) RemoveACL(ctx context.Context, ino Ino, kind string) error {
	return t.changeXattrs(ctx, ino, func(_ *row, m map[string][]byte) error {
		delete(m, kind)
		return nil
	})
}

// keepList enters an access list among attributes, if the mode cannot say it.
func keepList(m map[string][]byte, l acl.List) {
	if l.Plain() {
		delete(m, acl.Access)
		return
	}
	m[acl.Access] = l.Bytes()
}

// inherit completes the mode of an inode that is being made and returns the
// attributes that it gets from its directory, whose lock is held.
func (c *change) inherit(dir *edit, r *row, umask uint32) (map[string][]byte, error) {
	if r.mode&modeType == modeLnk {
		return nil, nil
	}
	if err := c.t.readXattrs(dir.in); err != nil {
		return nil, err
	}
	value, ok := dir.in.xattrs[acl.Default]
	if !ok {
		r.mode &^= umask & 0o777
		return nil, nil
	}
	def, err := acl.Parse(value)
	if err != nil {
		return nil, fmt.Errorf("default list of directory %d: %w", dir.in.ino, err)
	}
	m := map[string][]byte{}
	var access acl.List
	access, r.mode = def.Inherit(r.mode)
	keepList(m, access)
	if r.isDir() {
		m[acl.Default] = value
	}
	return m, nil
}

// chmodList makes an access list follow the mode that its inode was given.
func (c *change) chmodList(e *edit) error {
	if err := c.t.readXattrs(e.in); err != nil {
		return err
	}
	value, ok := e.in.xattrs[acl.Access]
	if !ok {
		return nil
	}
	l, err := acl.Parse(value)
	if err != nil {
		return fmt.Errorf("list of inode %d: %w", e.in.ino, err)
	}
	e.xattrs = maps.Clone(e.in.xattrs)
	keepList(e.xattrs, l.WithMode(e.row.mode))
	return nil
}
