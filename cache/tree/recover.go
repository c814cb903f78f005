package tree

import (
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
		b.Put(singleKey("usage"), usageRow(files, bytes, 0, 0, 0))
	}
	if b.Len() == 0 {
		return nil
	}
	if _, err := st.Apply(&b); err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	return nil
}
