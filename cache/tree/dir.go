package tree

import (
	"context"
	"errors"
)

// ReadDir calls fn for the entries of a directory after cookie, in an order
// that does not move while entries come and go, until fn returns false. "." and
// ".." are not among them.
func (t *Tree) ReadDir(ctx context.Context, dir Ino, cookie uint64, fn func(DirEntry) bool) error {
	d, err := t.directory(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(d)
	d.mu.Lock()
	t.touchAtime(d)
	d.mu.Unlock()
	for n := 32; ; n = min(2*n, 512) {
		batch, err := t.readEntries(dir, cookie, n)
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, e := range batch {
			cookie = e.Cookie
			e.Attr, err = t.attrOf(ctx, e.Attr.Ino)
			if errors.Is(err, ErrStale) {
				continue // removed since
			}
			if err != nil {
				return err
			}
			if !fn(e) {
				return nil
			}
		}
	}
}

// readEntries reads up to n entries after cookie; only Ino is set in Attr.
func (t *Tree) readEntries(dir Ino, cookie uint64, n int) ([]DirEntry, error) {
	out := make([]DirEntry, 0, n)
	var bad error
	err := t.st.Scan(cookieKey(dir, cookie+1), key(tableCookie, dir+1), func(_, v []byte) bool {
		e, name, err := decodeCookie(v)
		if err != nil {
			bad = err
			return false
		}
		out = append(out, DirEntry{Name: name, Cookie: e.cookie, Attr: Attr{Ino: e.ino, Mode: e.typ}})
		return len(out) < n
	})
	return out, errors.Join(err, bad)
}

// decodeCookie splits the value of a cookie row: an entry and its name.
func decodeCookie(v []byte) (entry, string, error) {
	d := rowDecoder{b: v}
	e := entry{ino: Ino(d.uvarint()), typ: uint32(d.uvarint()) << 12, cookie: d.uvarint()}
	if d.bad {
		return e, "", errors.New("malformed cookie row")
	}
	return e, string(d.b), nil
}

// rowNow is an inode's row without loading anything.
func (t *Tree) rowNow(ino Ino) (row, error) {
	b, ok, err := t.st.Get(key(tableInode, ino))
	if err != nil {
		return row{}, err
	}
	if !ok {
		return row{}, ErrStale
	}
	return decodeRow(b)
}

// IsLoaded reports whether the entries of a directory are on this device.
func (t *Tree) IsLoaded(ino Ino) (bool, error) {
	r, err := t.rowNow(ino)
	return r.has(flagLoaded), err
}
