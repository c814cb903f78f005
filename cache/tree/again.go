package tree

import (
	"context"

	"skep/chunker/dag"
)

// Again has the next commit take chunks of a file as if they had been written, for
// nobody else has them any more. It takes those that are here as the newest commit
// has them, and returns how many that are; content and times stay as they are.
func (t *Tree) Again(ctx context.Context, ino Ino, chunks []int64) (n int, err error) {
	if len(chunks) == 0 {
		return 0, nil
	}
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return 0, ignoreStale(err)
	}
	defer t.release(in)
	in.mu.Lock()
	first := in.opens == 0
	in.mu.Unlock()
	if first {
		if err := t.settleDoubt(ctx, in); err != nil {
			return 0, err
		}
	}
	defer t.changed()
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case in.orphan || in.stale || !in.row.isFile() || in.row.content.IsZero():
		return 0, nil
	case in.row.has(flagInline):
		return len(chunks), t.rowAgain(in)
	}
	return t.rangesAgain(in, chunks)
}

// rangesAgain is Again for content in a backing file; the gate and in.mu are held.
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
