package tree

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"skep/cache/state"
)

// Content of a small file is a row of the tables, and may be let go of like that
// of a larger one where a commit has it as a block. What a record alone holds
// stays: it takes no more than the row that says so.

// tableSmall lists inodes whose content is a row that may be let go of: inode →
// size. Some of them were written or deleted since.
const tableSmall = 's'

// isSmall reports whether the content of a file is a row, and a block of the newest
// commit.
func (r *row) isSmall() bool {
	return r.isFile() && r.has(flagInline) && !r.has(flagDirty) && !r.content.IsZero() && r.contentSize == r.size
}

// smallMayGo reports whether the content of a small file may be let go of; in.mu is
// held.
func (in *inode) smallMayGo() bool {
	return in.row.isSmall() && in.opens == 0 && !in.writing && in.frozen == nil && !in.orphan && !in.stale
}

// listSmall enters an inode into the list, if it belongs there.
func (c *change) listSmall(e *edit) {
	if e.row.isSmall() && !e.in.orphan {
		c.b.Put(key(tableSmall, e.in.ino), binary.AppendUvarint(nil, uint64(e.row.size)))
	}
}

// Small is how many bytes of content are rows that may be let go of.
func (t *Tree) Small() int64 { return max(0, t.small64.Load()) }

// Smalls is Residents for small files, from an inode number on.
func (t *Tree) Smalls(from uint64, n int, fn func(Resident)) (next uint64, err error) {
	var found []Ino
	err = t.st.Scan(key(tableSmall, Ino(from)), []byte{tableSmall + 1}, func(k, _ []byte) bool {
		if m, err := parseMark(k); err == nil {
			found = append(found, m.Dir)
		}
		return len(found) < n
	})
	if err != nil {
		return 0, err
	}
	for _, ino := range found {
		r, ok, err := t.smallResident(ino)
		if err != nil { // it keeps no others
			t.log.Debug("the content of a small file stays", "path", t.Path(ino), "err", err)
		} else if ok {
			fn(r)
		}
		next = uint64(ino) + 1
	}
	if len(found) < n {
		next = 0
	}
	return next, nil
}

// smallResident describes a small file. One that is none any more it takes off the
// list.
func (t *Tree) smallResident(ino Ino) (Resident, bool, error) {
	in, _ := t.inodes.find(ino)
	if in == nil {
		r, err := t.rowNow(ino)
		if err == nil && !r.isSmall() || isStale(err) {
			return Resident{}, false, t.unlistSmall(ino)
		}
		if err != nil {
			return Resident{}, false, err
		}
		in = &inode{ino: ino, row: r}
	} else {
		defer t.release(in)
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	r := Resident{Ino: ino, Local: in.row.size, Used: in.lastUse(), Kept: !in.smallMayGo() || t.Pinned(ino)}
	return r, true, nil
}

// unlistSmall takes an inode off the list, unless it belongs there.
func (t *Tree) unlistSmall(ino Ino) error {
	in, err := t.acquire(context.Background(), ino)
	if err != nil {
		if !isStale(err) {
			return err
		}
		var b state.Batch // no inode has the number again
		b.Freeing()
		b.Delete(key(tableSmall, ino))
		_, err = t.st.Apply(&b)
		return noSpace(err)
	}
	defer t.release(in)
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.isSmall() {
		return nil
	}
	c, _ := t.lockedChange(in)
	c.b.Freeing()
	c.b.Delete(key(tableSmall, ino))
	return c.applyLocked()
}

// EvictSmall lets go of the content of a small file, and returns how many bytes that
// are; 0 if it is in use. Evict says the rest.
func (t *Tree) EvictSmall(ctx context.Context, ino Ino) (freed int64, err error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return 0, ignoreStale(err)
	}
	defer t.release(in)
	in.mu.Lock()
	f, may := in.row.committed(), in.smallMayGo()
	in.mu.Unlock()
	if !may {
		return 0, nil
	}
	if t.opt.Held != nil {
		if err := t.opt.Held(ctx, f, 0, 1); err != nil {
			return 0, fmt.Errorf("%s: %w", t.Path(ino), err)
		}
	}
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if !in.smallMayGo() || in.row.committed() != f {
		return 0, nil // it was used meanwhile
	}
	c, e := t.lockedChange(in)
	c.b.Freeing()
	r := e.local()
	r.flags &^= flagInline
	c.b.Delete(key(tableInline, ino))
	c.b.Delete(key(tableSmall, ino))
	if err := c.applyLocked(); err != nil {
		return 0, err
	}
	in.loose, in.ranged, in.whole = 0, true, false
	return in.row.size, nil
}

// CompactSmall has the room given back that content took which was let go of as a row, and
// done told how that ended; see state.Compact.
func (t *Tree) CompactSmall(done func(error)) { t.st.Compact(tableInline, done) }

// recountSmall counts anew how much small content may be let go of: a crash can
// make the total wrong.
func (t *Tree) recountSmall() error {
	return t.countAnew(&t.small64, func(still func() bool) (sum int64, err error) {
		var bad error
		err = t.st.Scan([]byte{tableSmall}, []byte{tableSmall + 1}, func(_, v []byte) bool {
			n, used := binary.Uvarint(v)
			if used <= 0 || n > InlineMax {
				bad = errors.New("malformed row of a small file")
			}
			sum += int64(n)
			return bad == nil && still()
		})
		return sum, errors.Join(err, bad)
	})
}
