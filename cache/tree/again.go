package tree

import (
	"context"

	"skep/chunker/dag"
)

// Again has the next commit take chunks of a file as if they had been written, for
// nobody else has them any more; content and times stay as they are. Of the chunks that
// are lost it takes those that are whole, if they are here as the newest commit has them,
// and all of a file that the kernel writes alone. It returns how many it takes; and how
// many are left that no commit will bring: what changed since, or was cut off, is not.
func (t *Tree) Again(ctx context.Context, ino Ino, lost, whole []int64) (taken, left int, err error) {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return 0, 0, ignoreStale(err)
	}
	defer t.release(in)
	in.mu.Lock()
	first := in.opens == 0
	in.mu.Unlock()
	if first && len(whole) > 0 {
		if err := t.settleDoubt(ctx, in); err != nil {
			return 0, 0, err
		}
	}
	defer t.changed()
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.orphan || in.stale || !in.row.isFile() || in.row.content.IsZero() {
		return 0, 0, nil
	}
	if taken, err = t.takeAgain(in, lost, whole); err == nil {
		left, err = t.unchanged(in, lost)
	}
	return taken, left, err
}

// takeAgain has the next commit take what Again says; the gate and in.mu are held.
func (t *Tree) takeAgain(in *inode, lost, whole []int64) (int, error) {
	switch {
	case in.passthrough && in.writers > 0:
		in.taken = nil // it counts as changed, and is read as a whole
		return len(lost), nil
	case len(whole) == 0:
		return 0, nil
	case in.row.has(flagInline):
		return len(whole), t.rowAgain(in)
	}
	return t.rangesAgain(in, whole)
}

// unchanged counts the chunks that the file has still as the newest commit has them, and
// that the next one will not take; in.mu is held.
func (t *Tree) unchanged(in *inode, chunks []int64) (n int, err error) {
	if err := t.readRanges(in); err != nil {
		return 0, err
	}
	dirty, all := in.unpublished()
	if in.row.has(flagDirty) && (all || in.row.has(flagInline)) {
		return 0, nil
	}
	for _, i := range chunks {
		from, to := i*dag.ChunkSize, min((i+1)*dag.ChunkSize, in.row.size)
		if !dirty.Contains(from, to) { // of what was cut off, nothing is left to contain
			n++
		}
	}
	return n, nil
}

// rangesAgain is takeAgain for content in a backing file; the gate and in.mu are held.
func (t *Tree) rangesAgain(in *inode, chunks []int64) (n int, err error) {
	_, clean, err := t.cleanWithTail(in)
	if err != nil {
		return 0, err
	}
	if err := t.beginWriting(in); err != nil {
		return 0, err
	}
	for _, i := range chunks {
		if from, to := i*dag.ChunkSize, min((i+1)*dag.ChunkSize, in.row.size); clean.Contains(from, to) {
			in.noteDirty(from, to)
			n++
		}
	}
	in.soft = true
	if in.opens == 0 {
		t.settleClosed(in)
	} else {
		t.inodes.writer(in) // until it is closed, a cut has to look at it
	}
	return n, nil
}

// AgainDir has the next commit look at a loaded directory as if an entry of it had
// changed. It returns whether there is one.
func (t *Tree) AgainDir(dir Ino) (bool, error) {
	some, err := t.readEntries(dir, 0, 1)
	if err != nil || len(some) == 0 {
		return false, err
	}
	c := t.begin()
	t.names.Lock()
	defer t.names.Unlock()
	c.mark(dir, some[0].name)
	c.err = t.carryEntry(Mark{dir, some[0].name})
	defer t.changed()
	return true, c.apply()
}

// rowAgain is Again for content that is a row; the gate and in.mu are held.
func (t *Tree) rowAgain(in *inode) error {
	c, e := t.lockedChange(in)
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	return c.applyLocked()
}
