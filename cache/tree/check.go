package tree

import (
	"context"

	"skep/cache/backing"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// CleanChunks calls fn for the chunks of a file that are here, and are to be as the
// newest commit has them, with what is there. The slice is only valid during
// the call.
func (t *Tree) CleanChunks(ctx context.Context, ino Ino, fn func(f dag.File, i int64, chunk []byte) error) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	buf := make([]byte, dag.ChunkSize)
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.isSmall() {
		return t.cleanRow(in, fn)
	}
	f, clean, err := t.cleanWithTail(in)
	if err != nil {
		return err
	}
	defer t.closeBacking(in)
	for _, r := range clean.List() {
		for at := r.From; at < r.To; at += dag.ChunkSize {
			p := buf[:min(dag.ChunkSize, r.To-at)]
			if _, err := t.readBacking(in, p, at); err != nil {
				return err
			}
			if err := fn(f, at/dag.ChunkSize, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// cleanRow is CleanChunks for content that is a row; in.mu is held.
func (t *Tree) cleanRow(in *inode, fn func(f dag.File, i int64, chunk []byte) error) error {
	b, err := t.inlineContent(in)
	if err != nil {
		return err
	}
	p := make([]byte, in.row.size) // the row may be shorter: then zeros follow
	copy(p, b)
	return fn(in.row.committed(), 0, p)
}

// Committed is the block that leads to all that the newest commit has of a
// directory or a file; zero if it has none.
func (t *Tree) Committed(ino Ino) (link.Link, error) {
	r, err := t.rowNow(ino)
	return r.content, err
}

// cleanWithTail is cleanHere, with the last chunk if that is clean and here; in.mu
// is held.
func (t *Tree) cleanWithTail(in *inode) (dag.File, backing.Ranges, error) {
	var none backing.Ranges
	if !in.row.isFile() || !in.row.has(flagBacking) || in.row.content.IsZero() {
		return dag.File{}, none, nil
	}
	if err := t.readRanges(in); err != nil {
		return dag.File{}, none, err
	}
	clean, here := in.cleanHere(), in.here()
	tail := in.row.size / dag.ChunkSize * dag.ChunkSize
	if !in.row.has(flagDirty) && in.row.size == in.row.contentSize && here.Contains(tail, in.row.size) {
		clean.Add(tail, in.row.size)
	}
	return in.row.committed(), clean, nil
}

// DropChunk lets go of a chunk whose backing file is damaged, if the newest commit
// has it: who reads it fetches it.
func (t *Tree) DropChunk(ctx context.Context, ino Ino, i int64) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	t.gate.RLock()
	defer t.gate.RUnlock()
	in.mu.Lock()
	defer in.mu.Unlock()
	_, clean, err := t.cleanWithTail(in)
	if err != nil {
		return err
	}
	chunk := clean.Within(i*dag.ChunkSize, (i+1)*dag.ChunkSize)
	if len(chunk) == 0 {
		return nil
	}
	_, err = t.letGo(in, chunk)
	return err
}
