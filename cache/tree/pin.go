package tree

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"skep/cache/state"
	"skep/chunker/dag"
)

// PinXattr is the attribute by which a file or folder is pinned to this device.
// It is not part of the drive: it is not listed, and other devices do not see
// it.
const PinXattr = "user.skep.pin"

// Values of the attribute, as it is read.
var (
	pinnedHere  = []byte("1")
	pinnedAbove = []byte("inherited") // from a folder above
)

// pins are the inodes that were pinned; all that is below them is, too.
type pins struct {
	n  atomic.Int64 // len(m)
	mu sync.RWMutex // guards m
	m  map[Ino]bool
}

func (p *pins) has(ino Ino) bool {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.m[ino]
}

func (p *pins) set(ino Ino, on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if on {
		p.m[ino] = true
	} else {
		delete(p.m, ino)
	}
	p.n.Store(int64(len(p.m)))
}

func (t *Tree) readPins() error {
	t.pins.m = map[Ino]bool{}
	return t.st.Scan([]byte{tablePin}, []byte{tablePin + 1}, func(k, _ []byte) bool {
		if m, err := parseMark(k); err == nil {
			t.pins.set(m.Dir, true)
		}
		return true
	})
}

// Pin keeps the content of a file, or of all that is or comes below a folder,
// on this device, or no longer. Fetching what is not here is the caller's.
func (t *Tree) Pin(ctx context.Context, ino Ino, on bool) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	var b state.Batch
	if on {
		b.Put(key(tablePin, ino), nil)
	} else {
		b.Delete(key(tablePin, ino))
	}
	if _, err := t.st.Apply(&b); err != nil {
		return noSpace(err)
	}
	t.pins.set(ino, on)
	if t.opt.Pinned != nil {
		t.opt.Pinned()
	}
	return nil
}

// Pinned reports whether an inode's content is to stay on this device, by a pin
// of its own or of a folder above. Of a file with several names, the one counts
// that was used last.
func (t *Tree) Pinned(ino Ino) bool {
	if t.pins.n.Load() == 0 {
		return false
	}
	for range maxDepth {
		if t.pins.has(ino) {
			return true
		}
		r, err := t.rowNow(ino)
		if err != nil || ino == Root {
			return false
		}
		ino = r.parent
	}
	return false
}

// maxDepth is how many folders are looked at above an inode.
const maxDepth = 4096

// Pins returns what is pinned. Pins of what is gone end with that.
func (t *Tree) Pins() []Ino {
	t.pins.mu.RLock()
	all := slices.Sorted(maps.Keys(t.pins.m))
	t.pins.mu.RUnlock()
	return slices.DeleteFunc(all, func(ino Ino) bool {
		_, err := t.rowNow(ino)
		if isStale(err) {
			t.pins.set(ino, false)
			var b state.Batch
			b.Delete(key(tablePin, ino))
			_, err = t.st.Apply(&b)
			return err == nil
		}
		return false
	})
}

// pinXattr is the value of PinXattr.
func (t *Tree) pinXattr(ino Ino) ([]byte, error) {
	switch {
	case t.pins.has(ino):
		return pinnedHere, nil
	case t.Pinned(ino):
		return pinnedAbove, nil
	}
	return nil, ErrNoAttr
}

// EachFile calls fn for a regular file, or for all that are below a folder.
func (t *Tree) EachFile(ctx context.Context, ino Ino, fn func(Attr) error) error {
	a, err := t.Attr(ctx, ino)
	if err != nil {
		return err
	}
	switch a.Mode & modeType {
	case modeReg:
		return fn(a)
	case modeDir:
	default:
		return nil
	}
	var below []Ino
	err = t.EachEntry(ctx, ino, func(e DirEntry) bool {
		switch e.Attr.Mode & modeType {
		case modeReg, modeDir:
			below = append(below, e.Attr.Ino)
		}
		return ctx.Err() == nil
	})
	if err == nil {
		err = ctx.Err()
	}
	for _, sub := range below {
		if err != nil {
			return err
		}
		err = ignoreStale(t.EachFile(ctx, sub, fn))
	}
	return err
}

// Fetch brings all of a file's content here. It fails with ErrNoSpace where
// there is no room to keep it.
func (t *Tree) Fetch(ctx context.Context, ino Ino) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return ignoreStale(err)
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	defer t.closeBacking(in)
	for at := int64(0); at < in.row.size; at += dag.ChunkSize {
		if !in.row.isFile() || in.stale || in.row.has(flagInline) {
			return nil
		}
		if err := errors.Join(ctx.Err(), t.fetch(ctx, in, at, min(at+dag.ChunkSize, in.row.size))); err != nil {
			return err
		}
	}
	return nil
}
