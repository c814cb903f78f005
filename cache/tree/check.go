package tree

import (
	"context"

	"skep/cache/backing"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// CleanChunks calls fn for the chunks of a file, from chunk from on, that are here, and
// are to be as the newest commit has them, with what is there. The slice is only valid during
// the call. Nobody else who wants the file waits for fn.
func (t *Tree) CleanChunks(ctx context.Context, ino Ino, from int64, fn func(f dag.File, i int64, chunk []byte) error) error {
	in, err := t.acquire(ctx, ino)
	if err != nil {
		return err
	}
	defer t.release(in)
	buf := make([]byte, dag.ChunkSize)
	for i := from; ; i++ {
		var f dag.File
		var chunk []byte
		if f, i, chunk, err = t.nextClean(in, i, buf); err != nil || chunk == nil {
			return err
		}
		if err := fn(f, i, chunk); err != nil {
			return err
		}
	}
}

// nextClean reads into buf the first clean chunk from chunk i on, and tells which that
// is; nil if there is none.
func (t *Tree) nextClean(in *inode, i int64, buf []byte) (f dag.File, at int64, chunk []byte, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.row.isSmall() {
		if i > 0 {
			return f, i, nil, nil
		}
		chunk, err = t.cleanRow(in)
		return in.row.committed(), 0, chunk, err
	}
	f, clean, err := t.cleanWithTail(in)
	if err != nil {
		return f, i, nil, err
	}
	left := clean.Within(i*dag.ChunkSize, in.row.size)
	if len(left) == 0 {
		return f, i, nil, nil
	}
	defer t.closeBacking(in)
	from := left[0].From
	chunk = buf[:min(dag.ChunkSize, left[0].To-from)]
	_, err = t.readBacking(in, chunk, from)
	return f, from / dag.ChunkSize, chunk, err
}

// cleanRow is the content of a small file; in.mu is held.
func (t *Tree) cleanRow(in *inode) ([]byte, error) {
	b, err := t.inlineContent(in)
	p := make([]byte, in.row.size) // the row may be shorter: then zeros follow
	copy(p, b)
	return p, err
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
	_, err = t.letGo(in, chunk, length(chunk))
	return err
}
