package tree

import (
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"skep/cache/state"
	"skep/chunker/dag"
)

// endedRow is there while the tree is closed, if all that it holds was flushed,
// and says when that was.
var endedRow = singleKey("ended")

// end flushes everything, and says so, unless somebody still has a file open for
// writing, or the tables could not be told of one: the next Open then finds the rows as
// they should be.
func (t *Tree) end() error {
	if t.inodes.any(func(in *inode) bool {
		return in.writers > 0 || in.flushErr != nil || !in.orphan && (in.gained || in.untold || in.writing && in.soft)
	}) {
		return nil
	}
	written := false
	err := t.st.Scan([]byte{tableWriting}, []byte{tableWriting + 1}, func(_, _ []byte) bool {
		written = true
		return false
	})
	if err == nil && written {
		err = t.files.SyncAll()
	}
	if err != nil {
		return err
	}
	var b state.Batch
	b.Put(endedRow, binary.BigEndian.AppendUint64(nil, uint64(t.opt.Now().UnixNano())))
	_, err = t.st.Apply(&b)
	return err
}

// endedWell reports whether the tree was closed after all was flushed, and makes
// sure that nobody will think so should this run end otherwise.
func (t *Tree) endedWell() (bool, error) {
	ended, well, err := t.st.Get(endedRow)
	if err != nil {
		return false, err
	}
	var b state.Batch
	if err := t.readAbsences(ended, &b); err != nil || !well {
		return false, err
	}
	b.Delete(endedRow)
	if _, err := t.st.Apply(&b); err != nil {
		return false, err
	}
	return true, t.st.Sync()
}

// recoverWriting looks after the files that were written and not flushed when
// the process or the power went: their backing files are the authority for
// content, size and times, and a commit has to look at all of them. It tells which.
func (t *Tree) recoverWriting() (inos []Ino, err error) {
	if well, err := t.endedWell(); well || err != nil {
		return nil, err
	}
	err = t.st.Scan([]byte{tableWriting}, []byte{tableWriting + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		if err == nil {
			inos = append(inos, m.Dir)
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	for _, ino := range inos {
		if err := t.recoverFile(ino); err != nil {
			return nil, fmt.Errorf("inode %d: %w", ino, err)
		}
	}
	return inos, nil
}

func (t *Tree) recoverFile(ino Ino) error {
	var b state.Batch
	r, err := t.rowNow(ino)
	if isStale(err) || err == nil && !r.has(flagBacking) {
		b.Delete(key(tableWriting, ino))
		_, err := t.st.Apply(&b)
		return err
	}
	if err != nil {
		return err
	}
	in := &inode{ino: ino, row: r, counted: r.tally()}
	in.charged = in.charge()
	if err := t.readRanges(in); err != nil {
		return err
	}
	st, err := t.rereadFile(in)
	switch {
	case err == nil:
		// What the file grew by was written here, whatever a commit has there.
		in.valid.Add(in.row.size, st.Size)
		in.noteBacking(st, t)
	case absent(err):
		in.row.loseBacking()
		t.tellDamaged(ino, "what was written of it, and is in no commit, is gone: it is not on the disk any more")
	default:
		return err
	}
	if in.row.has(flagBacking) {
		in.row.flags |= flagDirty
		in.row.dirtyEpoch = t.epoch.Load()
		if in.whole = !in.row.has(flagPartial); !in.whole { // of what is not here nothing changed
			in.dirty.Union(in.valid)
		}
		b.Put(key(tableRanges, ino), in.encodeRanges(in.valid))
	} else {
		b.Delete(backingKey(r.backing))
		b.Delete(key(tableRanges, ino))
		b.Delete(key(tableWriting, ino))
	}
	for n := range in.added.n {
		b.Delete(addedKey(ino, n))
	}
	return t.enterRecovered(&b, in)
}

// rereadFile makes the backing file of an inode what writes made it, as far as
// they are known, and returns what it is then, with the time of the last write.
func (t *Tree) rereadFile(in *inode) (unix.Stat_t, error) {
	before, err := t.files.Stat(in.row.backing)
	if err != nil {
		return before, err
	}
	// A flush may have failed, and nobody knows any more.
	if err := t.files.Reread(in.row.backing); err != nil {
		return before, err
	}
	if err := t.rewriteAdded(in); err != nil {
		return before, err
	}
	st, err := t.files.Stat(in.row.backing)
	st.Mtim = before.Mtim // to write again what was written changes nothing
	return st, err
}

// loseBacking makes a row what it is without its backing file: the power went
// before the file's name was on the disk.
func (r *row) loseBacking() {
	if r.has(flagPartial) { // the committed version is what is left
		r.size, r.local = r.contentSize, 0
		r.flags &^= flagBacking | flagPartial | flagDirty
		return
	}
	// Nobody had asked for it to be durable: an empty file, as a local filesystem
	// leaves it.
	r.size, r.local, r.room = 0, 0, 0
	r.flags = r.flags&^(flagBacking|flagPartial) | flagInline
}

// enterRecovered writes the row of a file that was found as a crash left it.
func (t *Tree) enterRecovered(b *state.Batch, in *inode) error {
	b.Put(key(tableInode, in.ino), in.row.encode())
	b.Put(in.entryMark(), uint64Value(t.epoch.Load()))
	_, err := t.count.apply(t.st, b, 0, in.row.tally().minus(in.counted))
	if err == nil {
		t.recharge(in)
	}
	return err
}

// Adopt makes the root directory of a commit that of a tree to be opened, on
// a device that has nothing else yet, or lost its index: rows that are there
// are newer than the commit, and stay. The commit says how many files it has, and of which
// size: see Cut.Usage.
func Adopt(st *state.Store, root dag.Inode, files, size int64) error {
	if err := adopt(st, root, files, size); err != nil {
		return fmt.Errorf("tree: %w", err)
	}
	return nil
}

func adopt(st *state.Store, root dag.Inode, files, size int64) error {
	seen, err := unloadAll(st)
	if err != nil {
		return err
	}
	var b state.Batch
	_, ok, err := st.Get(key(tableInode, Root))
	if err != nil {
		return err
	}
	if !ok {
		r := rowOf(root)
		b.Put(key(tableInode, Root), r.encode())
		if len(root.Xattrs) > 0 {
			b.Put(key(tableXattrs, Root), encodeXattrs(root.Xattrs))
		}
	}
	// What is not there counts with its size, whatever was known of it.
	if f, content, counted, err := countIn(st); err != nil {
		return err
	} else if counted {
		files, size = f, content.bytes+content.holes
	}
	b.Put(countKey, countRow(files, tally{size - seen.holes, seen.here, seen.holes}))
	_, err = st.Apply(&b)
	return err
}

// unloadAll has the entries of all directories that commits have come from them again,
// beside those that are there, and returns what the content of the rows comes to.
func unloadAll(st *state.Store) (seen tally, err error) {
	var b state.Batch
	var bad error
	err = st.Scan([]byte{tableInode}, []byte{tableInode + 1}, func(k, v []byte) bool {
		r, err := decodeRow(v)
		if err == nil {
			seen = seen.plus(r.tally())
		}
		if err == nil && r.isDir() && !r.content.IsZero() && r.has(flagLoaded) {
			r.flags &^= flagLoaded
			b.Put(k, r.encode())
		}
		if err == nil && b.Size() >= loadBytes {
			_, err = st.Apply(&b)
			b.Reset()
		}
		bad = err
		return err == nil
	})
	if err = errors.Join(err, bad); err == nil && b.Len() > 0 {
		_, err = st.Apply(&b)
	}
	return seen, err
}
