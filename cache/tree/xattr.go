package tree

import (
	"bytes"
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

// keptXattrs is up to which size attributes stay in memory with their inode: there may
// be many inodes.
const keptXattrs = 1 << 10

// dropXattrs forgets large attributes, unless the tables have them no more; in.mu is held.
func (in *inode) dropXattrs() {
	if !in.orphan && xattrsSize(in.xattrs) > keptXattrs {
		in.xattrs, in.xattrsRead = nil, false
	}
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
	defer in.dropXattrs()
	return fn(in.xattrs)
}

// GetXattr returns an extended attribute.
func (t *Tree) GetXattr(ctx context.Context, ino Ino, name string) (value []byte, err error) {
	if name == PinXattr {
		return t.pinXattr(ino)
	}
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

// SetXattr sets an extended attribute; flags as in setxattr(2). Access control
// lists are for SetACL.
func (t *Tree) SetXattr(ctx context.Context, ino Ino, name string, value []byte, flags int) error {
	switch {
	case name == "" || len(name) > xattrNameMax:
		return ErrRange
	case len(value) > xattrValueMax:
		return ErrTooBig
	case name == PinXattr:
		on := string(value) == "1"
		if !on && string(value) != "0" && len(value) > 0 {
			return ErrInvalid
		}
		return t.Pin(ctx, ino, on)
	}
	return t.changeXattrs(ctx, ino, func(_ *row, m map[string][]byte) error {
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
	if name == PinXattr {
		if !t.pins.has(ino) {
			return ErrNoAttr
		}
		return t.Pin(ctx, ino, false)
	}
	return t.changeXattrs(ctx, ino, func(_ *row, m map[string][]byte) error {
		if _, ok := m[name]; !ok {
			return ErrNoAttr
		}
		delete(m, name)
		return nil
	})
}

// changeXattrs has fn change the attributes of an inode, and its mode if need
// be. What says the same as before is no change.
func (t *Tree) changeXattrs(ctx context.Context, ino Ino, fn func(*row, map[string][]byte) error) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	c := t.begin()
	e := c.edit(in)
	if err := c.editXattrs(e, fn); err != nil {
		c.abandon()
		return err
	}
	return c.apply()
}

func (c *change) editXattrs(e *edit, fn func(*row, map[string][]byte) error) error {
	if err := c.t.readXattrs(e.in); err != nil {
		return err
	}
	m := map[string][]byte{}
	maps.Copy(m, e.in.xattrs)
	mode := e.row.mode
	if err := fn(&e.row, m); err != nil {
		return err
	}
	if e.row.mode == mode && maps.EqualFunc(m, e.in.xattrs, bytes.Equal) {
		return nil
	}
	if xattrsSize(m) > xattrTotalMax {
		return ErrNoSpace
	}
	e.touched().ctime = c.now
	e.xattrs = m
	return nil
}

// putXattrs writes the row of an inode's attributes.
func (c *change) putXattrs(ino Ino, m map[string][]byte) {
	if len(m) == 0 {
		c.b.Delete(key(tableXattrs, ino))
		return
	}
	c.b.Put(key(tableXattrs, ino), encodeXattrs(m))
}

// xattrsSize is about how much room attributes take, in bytes.
func xattrsSize(m map[string][]byte) int {
	n := 0
	for name, value := range m {
		n += len(name) + len(value) + 4
	}
	return n
}
