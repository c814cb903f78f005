package tree

import (
	"context"

	"skep/cache/state"
	"skep/chunker/dag"
)

// aheadChunks is how many chunks are brought to the disk ahead of a sequential
// reader. They come from peers in parallel; writing them here while the reader
// works on what it has is what this is for.
const aheadChunks = 4

// readAhead begins to fetch the chunks behind i in the background, if the
// reader goes through the file in order. It ends when nobody has the file open any
// more; in.mu is held.
func (t *Tree) readAhead(in *inode, i int64) {
	if i == in.lastChunk && i > 0 || !in.row.has(flagPartial) {
		return
	}
	sequential := i == in.lastChunk+1
	in.lastChunk = i
	if !sequential {
		in.ahead = i
		return
	}
	if in.reading == nil {
		in.reading, in.endReading = context.WithCancel(t.ctx)
	}
	ctx, last := in.reading, (in.row.contentSize+dag.ChunkSize-1)/dag.ChunkSize
	for j := max(i, in.ahead) + 1; j <= i+aheadChunks && j < last; j++ {
		in.ahead = j
		in.hold()
		t.background.Go(func() {
			defer t.release(in)
			in.mu.Lock()
			defer in.mu.Unlock()
			t.fetchMissing(ctx, in, j)
		})
	}
}

// endAhead ends what is fetched ahead of readers: nobody has the file open any more.
// in.mu is held.
func (in *inode) endAhead() {
	if in.endReading != nil {
		in.endReading()
		in.reading, in.endReading = nil, nil
	}
}

// manyRanges is from how many ranges of a partial file on they are made fewer.
const manyRanges = 4096

// closeGaps begins to fetch the chunk that is written to, if writes all over a file
// that is not here have left many ranges; in.mu is held. There is one such fetch
// for a file at a time, and nobody waits for it.
func (t *Tree) closeGaps(in *inode, i int64) {
	if len(in.valid.List()) < manyRanges || in.closing || i*dag.ChunkSize >= in.row.contentSize {
		return
	}
	in.closing = true
	in.hold()
	t.background.Go(func() {
		defer t.release(in)
		in.mu.Lock()
		defer in.mu.Unlock()
		t.fetchMissing(t.ctx, in, i)
		in.closing = false
	})
}

// fetchMissing fetches a chunk of a partial file in the background, if some of it
// is missing; in.mu is held, but for the wait.
func (t *Tree) fetchMissing(ctx context.Context, in *inode, i int64) {
	if in.row.has(flagPartial) && len(in.valid.Missing(i*dag.ChunkSize, min((i+1)*dag.ChunkSize, in.row.size))) > 0 {
		_ = t.fetchChunk(ctx, in, i) // who reads it meets the error
	}
}

// Close ends what runs in the background, and keeps the totals. The tables stay
// open.
func (t *Tree) Close() {
	t.cancel()
	t.background.Wait()
	t.recordFetched() // and what was written beside it
	if err := t.FinishEvictions(context.Background()); err != nil {
		t.log.Info("what was let go of still takes room", "err", err)
	}
	var b state.Batch
	t.saveUsage(&b)
	if _, err := t.st.Apply(&b); err != nil {
		t.log.Info("the totals were not kept", "err", err)
	}
	if err := t.end(); err != nil {
		t.log.Info("files that were written will be looked at again", "err", err)
	}
}
