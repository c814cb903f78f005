package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"skep/chunker/dag"
	"skep/chunker/link"
)

// fetch makes [from, to) of a file resident. It lets go of in.mu while it
// waits for peers. A file that is not resident at all becomes inline if it is
// small, else it gets a partial backing file.
func (t *Tree) fetch(ctx context.Context, in *inode, from, to int64) error {
	for {
		if in.row.has(flagInline) {
			return nil
		}
		if err := t.readRanges(in); err != nil {
			return err
		}
		if in.row.has(flagBacking) && !in.row.has(flagPartial) {
			return nil
		}
		at := from
		if in.row.has(flagBacking) {
			missing := in.valid.Missing(from, min(to, in.row.size))
			if len(missing) == 0 {
				return nil
			}
			at = missing[0].From
		}
		if err := t.fetchChunk(ctx, in, at/dag.ChunkSize); err != nil {
			return err
		}
	}
}

// committed is the content of an inode in the newest commit that has it.
func (in *inode) committed() dag.File {
	return dag.File{Root: in.row.content, Size: in.row.contentSize}
}

// fetchChunk brings one committed chunk here. in.mu is held, but for the wait.
func (t *Tree) fetchChunk(ctx context.Context, in *inode, i int64) error {
	f := in.committed()
	if t.content == nil || f.Root.IsZero() || i*dag.ChunkSize >= f.Size {
		return fmt.Errorf("%s: chunk %d of %d bytes: %w", t.Path(in.ino), i, f.Size, ErrCorrupt)
	}
	in.mu.Unlock()
	chunk, err := t.content.ReadChunk(ctx, f, i)
	in.mu.Lock()
	if err != nil {
		return fmt.Errorf("%s: %w", t.Path(in.ino), err)
	}
	if in.committed() != f || in.row.has(flagInline) {
		return nil // it moved meanwhile: the caller looks again
	}
	return t.keepChunk(in, i, chunk)
}

// keepChunk stores a fetched chunk, without touching what is valid already.
func (t *Tree) keepChunk(in *inode, i int64, chunk []byte) error {
	if !in.row.has(flagBacking) {
		if in.row.size <= InlineMax && in.row.size == int64(len(chunk)) && !in.row.has(flagDirty) {
			return t.keepInline(in, chunk)
		}
		if err := t.moveToBacking(in); err != nil {
			return err
		}
	}
	if err := t.openBacking(in); err != nil {
		return err
	}
	at := i * dag.ChunkSize
	for _, r := range in.valid.Missing(at, min(at+int64(len(chunk)), in.row.size)) {
		if err := t.keepRange(in, chunk[r.From-at:r.To-at], r.From); err != nil {
			return err
		}
	}
	if in.valid.Contains(0, in.row.size) {
		return t.nowWhole(in)
	}
	return nil
}

// keepRange writes what was fetched into the backing file; zeros become a hole.
func (t *Tree) keepRange(in *inode, p []byte, at int64) error {
	if !isZero(p) || freeRange(in.file, at, int64(len(p))) != nil {
		if _, err := in.file.WriteAt(p, at); err != nil {
			return noSpace(fmt.Errorf("%s: %w", t.Path(in.ino), err))
		}
		t.occupied(in, int64(len(p)))
	}
	in.valid.Add(at, at+int64(len(p)))
	in.gained = true
	return nil
}

var zeros [4096]byte

func isZero(p []byte) bool {
	for len(p) > len(zeros) {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
		p = p[len(zeros):]
	}
	return bytes.Equal(p, zeros[:len(p)])
}

func (t *Tree) keepInline(in *inode, content []byte) error {
	c, e := t.lockedChange(in)
	e.local().flags |= flagInline
	c.b.Put(key(tableInline, in.ino), content)
	return c.applyLocked()
}

// nowWhole takes note that a partial file has become wholly resident. Its
// content came from peers and may be fetched again, so that nothing has to be
// flushed; but the row must not be on the disk before the content.
func (t *Tree) nowWhole(in *inode) error {
	t.countLocal(in)
	c, e := t.lockedChange(in)
	e.local().flags &^= flagPartial
	if in.row.has(flagDirty) {
		c.b.Put(key(tableRanges, in.ino), in.encodeRanges())
	} else {
		c.b.Delete(key(tableRanges, in.ino))
	}
	t.syncBeforeJournal(in, in.row.backing)
	in.gained = false
	return c.applyLocked()
}

// ContentState says of a file how much of it is here and whether a commit still has to
// take it.
type ContentState struct {
	Size, Resident int64
	Dirty          bool
	Content        link.Link // in the newest commit that has it
}

// ContentState returns the state of a regular file's content.
func (t *Tree) ContentState(ctx context.Context, ino Ino) (ContentState, error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return ContentState{}, err
	}
	defer t.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	t.refresh(in)
	if err := t.readRanges(in); err != nil {
		return ContentState{}, err
	}
	s := ContentState{Size: in.row.size, Dirty: in.row.has(flagDirty) || in.writing, Content: in.row.content}
	switch {
	case in.row.has(flagPartial):
		s.Resident = in.valid.Bytes()
	case in.row.has(flagBacking | flagInline):
		s.Resident = in.row.size
	}
	return s, nil
}

// isStale reports whether an error says that an inode is gone.
func isStale(err error) bool { return errors.Is(err, ErrStale) }

// Pending returns how many entries changed since the newest commit, and how
// many bytes of content a commit has to look at because of them.
func (t *Tree) Pending() (entries, bytes int64, err error) {
	err = t.eachMark(func(m Mark) {
		entries++
		if r, ok := t.markedFile(m); ok && r.has(flagDirty) {
			bytes += r.size
		}
	})
	return entries, bytes, err
}

// eachMark calls fn for every entry that changed.
func (t *Tree) eachMark(fn func(Mark)) error {
	var bad error
	err := t.st.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		if bad = err; err != nil {
			return false
		}
		fn(m)
		return true
	})
	return errors.Join(err, bad)
}

// markedFile is the row of the file under a marked entry, if it is one.
func (t *Tree) markedFile(m Mark) (row, bool) {
	ino, ok := t.markedInode(m)
	if !ok {
		return row{}, false
	}
	if in, _ := t.inodes.find(ino); in != nil {
		defer t.release(in)
		in.mu.Lock()
		defer in.mu.Unlock()
		t.refresh(in)
		return in.row, in.row.isFile()
	}
	r, err := t.rowNow(ino)
	return r, err == nil && r.isFile()
}

// markedInode is the inode whose record a marked entry holds.
func (t *Tree) markedInode(m Mark) (ino Ino, ok bool) {
	switch m.Dir {
	case 0:
		return 0, false
	case Links:
		_, err := fmt.Sscanf(m.Name, "%016x", (*uint64)(&ino))
		return ino, err == nil
	}
	e, err := t.readEntry(m.Dir, m.Name)
	if err != nil {
		return 0, false
	}
	r, err := t.rowNow(e.ino)
	return e.ino, err == nil && !r.has(flagMulti)
}

// IsPending reports whether an inode's record changed since the newest commit.
func (t *Tree) IsPending(ino Ino) (bool, error) {
	r, err := t.rowNow(ino)
	if err != nil {
		return false, err
	}
	dir, name := r.parent, r.name
	if r.has(flagMulti) {
		dir, name = Links, linkName(ino)
	}
	_, marked, err := t.st.Get(markKey(dir, name))
	return marked, err
}
