package tree

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/link"
)

// ContentState says of a file how much of it is here and whether a commit still has to
// take it.
type ContentState struct {
	Size, Resident int64
	Dirty          bool
	Content        link.Link // in the newest commit that has it
	ContentSize    int64     // there
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
	s := ContentState{Size: in.row.size, Dirty: in.row.has(flagDirty) || in.writing, Content: in.row.content, ContentSize: in.row.contentSize}
	switch {
	case in.row.has(flagPartial):
		s.Resident = in.valid.Bytes()
	case in.row.has(flagBacking | flagInline):
		s.Resident = in.row.size
	}
	return s, nil
}

// Pending returns how many entries changed since the newest commit, and how
// many bytes of content a commit has to look at because of them, holes apart as far as
// they are known.
func (t *Tree) Pending() (entries, bytes int64, err error) {
	err = t.eachMark(func(m Mark) bool {
		entries++
		if r, ok := t.markedFile(m); ok && r.has(flagDirty) {
			bytes += r.taken()
		}
		return true
	})
	return entries, bytes, err
}

// eachMark calls fn for every entry that changed, until it returns false.
func (t *Tree) eachMark(fn func(Mark) bool) error {
	var bad error
	err := t.st.Scan([]byte{tableMark}, []byte{tableMark + 1}, func(k, _ []byte) bool {
		m, err := parseMark(k)
		if bad = err; err != nil {
			return false
		}
		return fn(m)
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

// IsPendingBelow reports whether anything in or below a directory changed since the
// newest commit. It takes time in proportion to what changed in the drive.
func (t *Tree) IsPendingBelow(dir Ino) (bool, error) {
	in := map[Ino]bool{dir: true, 0: false, Root: dir == Root} // directories that lie below, or not
	found := false
	var bad error
	err := t.eachMark(func(m Mark) bool {
		at := m.Dir
		if at == Links {
			ino, _ := t.markedInode(m)
			at, bad = t.parentOf(ino)
		}
		if bad == nil {
			found, bad = t.isBelow(at, in)
		}
		return !found && bad == nil
	})
	return found, errors.Join(err, bad)
}

// isBelow reports whether a directory is one of those known to lie below another, or
// in one of them, and takes note of what it learns.
func (t *Tree) isBelow(dir Ino, known map[Ino]bool) (bool, error) {
	if yes, ok := known[dir]; ok {
		return yes, nil
	}
	known[dir] = false // ends a circle, which there should not be
	up, err := t.parentOf(dir)
	if err != nil {
		return false, err
	}
	known[dir], err = t.isBelow(up, known)
	return known[dir], err
}

// parentOf is the directory that an inode is in; 0 if the inode is gone.
func (t *Tree) parentOf(ino Ino) (Ino, error) {
	r, err := t.rowNow(ino)
	return r.parent, ignoreStale(err)
}
