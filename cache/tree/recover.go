package tree

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/state"
	"skep/chunker/dag"
)

// recoverWriting looks after the files that were open for writing when the
// process or the power went: their backing files are the authority for content,
// size and times, and a commit has to look at all of them.
func (t *Tree) recoverWriting() error {
	var inos []Ino
	err := t.st.Scan([]byte{tableWriting}, []byte{tableWriting + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		if err == nil {
			inos = append(inos, m.Dir)
		}
		return true
	})
	if err != nil {
		return err
	}
	for _, ino := range inos {
		if err := t.recoverFile(ino); err != nil {
			return fmt.Errorf("inode %d: %w", ino, err)
		}
	}
	return nil
}

func (t *Tree) recoverFile(ino Ino) error {
	var b state.Batch
	b.Delete(key(tableWriting, ino))
	r, err := t.rowNow(ino)
	if isStale(err) || err == nil && !r.has(flagBacking) {
		_, err := t.st.Apply(&b)
		return err
	}
	if err != nil {
		return err
	}
	in := &inode{ino: ino, row: r}
	in.charged = in.charge()
	if err := t.readRanges(in); err != nil {
		return err
	}
	if err := t.rewriteAdded(in); err != nil {
		return err
	}
	st, err := t.files.Stat(r.backing)
	switch {
	case err == nil:
		// What the file grew by was written here, whatever a commit has there.
		in.valid.Add(in.row.size, st.Size)
		in.noteBacking(st, t)
	case !absent(err):
		return err
	case !r.has(flagPartial):
		// The power went before the file's name was on the disk, and nobody
		// had asked for that: an empty file, as a local filesystem leaves it.
		in.row.size, in.row.local, in.row.room = 0, 0, 0
		in.row.flags = in.row.flags&^(flagBacking|flagPartial) | flagInline
	default:
		// The committed version is what is left.
		in.row.size, in.row.local = r.contentSize, 0
		in.row.flags &^= flagBacking | flagPartial | flagDirty
	}
	if in.row.has(flagBacking) {
		in.row.flags |= flagDirty
		in.row.dirtyEpoch = t.epoch.Load()
		in.whole = true
		b.Put(key(tableRanges, ino), in.encodeRanges())
	} else {
		b.Delete(backingKey(r.backing))
		b.Delete(key(tableRanges, ino))
	}
	for n := range in.added.n {
		b.Delete(addedKey(ino, n))
	}
	b.Put(key(tableInode, ino), in.row.encode())
	dir, name := in.row.parent, in.row.name
	if in.row.has(flagMulti) {
		dir, name = Links, linkName(ino)
	}
	b.Put(markKey(dir, name), uint64Value(t.epoch.Load()))
	if _, err = t.st.Apply(&b); err == nil {
		t.recharge(in)
	}
	return err
}

// Adopt makes the root directory of a commit that of a tree to be opened, on
// a device that has nothing else yet, or lost its index: rows that are there
// are newer than the commit, and stay.
func Adopt(st *state.Store, root dag.Inode, files, bytes int64) error {
	var b state.Batch
	var bad error
	err := st.Scan([]byte{tableInode}, []byte{tableInode + 1}, func(k, v []byte) bool {
		r, err := decodeRow(v)
		if err != nil {
			bad = err
			return false
		}
		if r.isDir() && !r.content.IsZero() && r.has(flagLoaded) {
			r.flags &^= flagLoaded
			b.Put(k, r.encode())
		}
		return true
	})
	if err = errors.Join(err, bad); err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	if _, ok, err := st.Get(key(tableInode, Root)); err != nil {
		return fmt.Errorf("tree: %w", err)
	} else if !ok {
		r := rowOf(root)
		b.Put(key(tableInode, Root), r.encode())
		b.Put(singleKey("usage"), usageRow(files, bytes, 0, 0))
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := st.Apply(&b); err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	return nil
}

// Sweep deletes backing files that no inode names: what a crash left between
// making one and journalling it, or between journalling its end and deleting
// it. What the others take it counts. It may run beside everything else, once
// after Open.
func (t *Tree) Sweep(ctx context.Context) error {
	before := t.local64.Load()
	var local int64
	err := t.files.Each(func(n uint64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !t.files.IsOld(n) {
			return nil
		}
		_, named, err := t.st.Get(backingKey(n))
		switch {
		case err != nil || t.awaitsRemoval(n):
			return err
		case !named:
			return t.files.Remove(n)
		}
		st, err := t.files.Stat(n)
		if err == nil {
			local += st.Blocks * 512
		} else if absent(err) {
			err = nil // removed meanwhile
		}
		return err
	})
	if err == nil {
		t.local64.Add(local - before)
		err = t.RecountUnsynced()
	}
	return err
}

// awaitsRemoval reports whether a backing file is let go of already, and only
// kept until that is safe.
func (t *Tree) awaitsRemoval(n uint64) bool {
	t.removeMu.Lock()
	defer t.removeMu.Unlock()
	for _, r := range t.removals {
		if r.number == n {
			return true
		}
	}
	return false
}
