package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	xattrNameMax  = 255
	xattrValueMax = 64 << 10
	xattrTotalMax = 256 << 10
)

func encodeXattrs(m map[string][]byte) []byte {
	var b []byte
	for _, name := range slices.Sorted(maps.Keys(m)) {
		b = binary.AppendUvarint(b, uint64(len(name)))
		b = append(b, name...)
		b = binary.AppendUvarint(b, uint64(len(m[name])))
		b = append(b, m[name]...)
	}
	return b
}

func decodeXattrs(b []byte) (map[string][]byte, error) {
	d := rowDecoder{b: b}
	m := map[string][]byte{}
	for len(d.b) > 0 && !d.bad {
		name := string(d.take(int(min(d.uvarint(), 1<<20))))
		m[name] = slices.Clone(d.take(int(min(d.uvarint(), 1<<20))))
	}
	if d.bad {
		return nil, errors.New("malformed attributes row")
	}
	return m, nil
}

// readXattrs brings the attributes into memory; in.mu is held.
func (t *Tree) readXattrs(in *inode) error {
	if in.xattrsRead {
		return nil
	}
	b, _, err := t.st.Get(key(tableXattrs, in.ino))
	if err != nil {
		return err
	}
	if in.xattrs, err = decodeXattrs(b); err != nil {
		return err
	}
	in.xattrsRead = true
	return nil
}

// withXattrs calls fn with an inode's attributes.
func (t *Tree) withXattrs(ctx context.Context, ino Ino, fn func(map[string][]byte) error) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	if err := t.readXattrs(in); err != nil {
		return err
	}
	return fn(in.xattrs)
}

// GetXattr returns an extended attribute.
func (t *Tree) GetXattr(ctx context.Context, ino Ino, name string) (value []byte, err error) {
	err = t.withXattrs(ctx, ino, func(m map[string][]byte) error {
		v, ok := m[name]
		if !ok {
			return ErrNoAttr
		}
		value = v
		return nil
	})
	return value, err
}

// ListXattr returns the names of the extended attributes.
func (t *Tree) ListXattr(ctx context.Context, ino Ino) (names []string, err error) {
	err = t.withXattrs(ctx, ino, func(m map[string][]byte) error {
		names = slices.Sorted(maps.Keys(m))
		return nil
	})
	return names, err
}

// SetXattr sets an extended attribute; flags as in setxattr(2).
func (t *Tree) SetXattr(ctx context.Context, ino Ino, name string, value []byte, flags int) error {
	switch {
	case name == "" || len(name) > xattrNameMax:
		return ErrRange
	case len(value) > xattrValueMax:
		return ErrTooBig
	}
	return t.changeXattrs(ctx, ino, func(m map[string][]byte) error {
		_, there := m[name]
		if flags&unix.XATTR_CREATE != 0 && there {
			return ErrExists
		}
		if flags&unix.XATTR_REPLACE != 0 && !there {
			return ErrNoAttr
		}
		m[name] = slices.Clone(value)
		return nil
	})
}

// RemoveXattr removes an extended attribute.
func (t *Tree) RemoveXattr(ctx context.Context, ino Ino, name string) error {
	return t.changeXattrs(ctx, ino, func(m map[string][]byte) error {
		if _, ok := m[name]; !ok {
			return ErrNoAttr
		}
		delete(m, name)
		return nil
	})
}

func (t *Tree) changeXattrs(ctx context.Context, ino Ino, fn func(map[string][]byte) error) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	c := t.begin()
	e := c.edit(in)
	if err := t.readXattrs(in); err != nil {
		c.abandon()
		return err
	}
	m := maps.Clone(in.xattrs)
	if err := fn(m); err != nil {
		c.abandon()
		return err
	}
	enc := encodeXattrs(m)
	if len(enc) > xattrTotalMax {
		c.abandon()
		return ErrNoSpace
	}
	e.touched().ctime = c.now
	switch {
	case in.orphan:
	case len(m) == 0:
		c.b.Delete(key(tableXattrs, ino))
	default:
		c.b.Put(key(tableXattrs, ino), enc)
	}
	old := in.xattrs
	in.xattrs = m
	if err := c.apply(); err != nil {
		in.mu.Lock()
		in.xattrs = old
		in.mu.Unlock()
		return err
	}
	return nil
}
