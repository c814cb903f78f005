package tree

import (
	"context"
	"os"

	"skep/chunker/dag"
)

// Again has the next commit take chunks of a file as if they had been written, for
// nobody else has them any more. It takes those that are here as the newest commit
// has them, and returns how many that are; content and times stay as they are.
func (t *Tree) Again(ctx context.Context, ino Ino, chunks []int64) (n int, err error) {
	if len(chunks) == 0 {
		return 0, nil
	}
	f, err := t.Open(ctx, ino, os.O_RDWR)
	if err != nil {
		return 0, ignoreStale(err)
	}
	defer f.Release()
	defer t.changed()
	in := f.in
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.orphan || in.row.content.IsZero() {
		return 0, nil
	}
	if in.row.has(flagInline) {
		return len(chunks), t.inlineAgain(in)
	}
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

// inlineAgain is Again for content that is a row.
func (t *Tree) inlineAgain(in *inode) error {
	c, e := t.lockedChange(in)
	r := e.touched()
	r.flags |= flagDirty
	r.dirtyEpoch = c.epoch
	return c.applyLocked()
}
