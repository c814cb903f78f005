package tree

import (
	"context"
	"errors"
)

// ReadDir calls fn for the entries of a directory after cookie, in an order
// that does not move while entries come and go, until fn returns false. "." and
// ".." are not among them. Of an inode with several names whose attributes cannot be read
// now, name, number and type are told: see DirEntry.
func (t *Tree) ReadDir(ctx context.Context, dir Ino, cookie uint64, fn func(DirEntry) bool) error {
	d, err := t.directory(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(d)
	d.mu.Lock()
	t.touchAtime(d)
	d.mu.Unlock()
	return t.entries(ctx, d, cookie, true, fn)
}

// EachEntry is ReadDir, of all entries, for who looks at a directory without that a
// program reads it: its access time stays. It fails where attributes cannot be read.
func (t *Tree) EachEntry(ctx context.Context, dir Ino, fn func(DirEntry) bool) error {
	d, err := t.directory(ctx, dir)
	if err != nil {
		return err
	}
	defer t.release(d)
	return t.entries(ctx, d, 0, false, fn)
}

func (t *Tree) entries(ctx context.Context, d *inode, cookie uint64, bare bool, fn func(DirEntry) bool) error {
	for inVain := false; ; {
		part, err := t.listed(d, cookie)
		if err != nil || len(part) == 0 {
			return err
		}
		for _, l := range part {
			cookie = l.cookie
			e := DirEntry{Name: l.name, Cookie: cookie}
			if e.Attr, err = t.attrListed(ctx, l.ino, inVain); bare && isElsewhere(err) && ctx.Err() == nil {
				inVain = true
				e.Attr, e.Bare, err = Attr{Ino: l.ino, Mode: l.typ}, true, nil
			}
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

// attrListed is attrOf for a listing: once something was asked for in vain, nobody else
// is asked.
func (t *Tree) attrListed(ctx context.Context, ino Ino, inVain bool) (Attr, error) {
	if inVain {
		if r, err := t.rowNow(ino); err == nil && r.has(flagUnread) {
			return Attr{}, ErrUnreachable
		}
	}
	return t.attrOf(ctx, ino)
}

// isElsewhere reports whether an error says that something is not on this device and
// cannot be read now.
func isElsewhere(err error) bool {
	return errors.Is(err, ErrLost) || errors.Is(err, ErrUnreachable) || errors.Is(err, ErrCorrupt)
}

// readEntries reads up to n entries after cookie.
func (t *Tree) readEntries(dir Ino, cookie uint64, n int) ([]namedEntry, error) {
	out := make([]namedEntry, 0, n)
	var bad error
	err := t.st.Scan(cookieKey(dir, cookie+1), key(tableCookie, dir+1), func(_, v []byte) bool {
		e, name, err := decodeCookie(v)
		if err != nil {
			bad = err
			return false
		}
		out = append(out, namedEntry{e, name})
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
