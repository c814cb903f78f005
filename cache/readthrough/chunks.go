package readthrough

import (
	"context"
	"fmt"
	"sync"

	"skep/cache/readerr"
	"skep/chunker/dag"
	"skep/chunker/link"
)

const (
	// chunksAhead is how many chunks are fetched ahead of a sequential reader.
	chunksAhead = 8
	// chunkMemory is how many chunks are kept or on their way.
	chunkMemory = 24
)

// chunkCache fetches chunks of files, each once, ahead of those who read in
// order.
type chunkCache struct {
	r *Reader

	mu     sync.Mutex // guards all below
	chunks map[chunkKey]*chunk
	order  []chunkKey // oldest first
	last   map[link.Hash]int64
}

type chunkKey struct {
	root  link.Hash
	index int64
}

// chunk is fetched or on its way; done is closed when b and err are set.
type chunk struct {
	done   chan struct{}
	b      []byte
	err    error
	cancel context.CancelFunc
	wanted int // callers that wait; guarded by chunkCache.mu
}

// ReadChunk implements tree.Content.
func (r *Reader) ReadChunk(ctx context.Context, f dag.File, i int64) ([]byte, error) {
	b, err := r.chunks.read(ctx, f, i)
	return b, classify(err)
}

func (c *chunkCache) read(ctx context.Context, f dag.File, i int64) ([]byte, error) {
	c.mu.Lock()
	if c.chunks == nil {
		c.chunks, c.last = map[chunkKey]*chunk{}, map[link.Hash]int64{}
	}
	ch := c.start(f, i)
	ch.wanted++
	if prev, ok := c.last[f.Root.Hash]; (ok && prev+1 == i) || i == 0 && f.Chunks() > 1 {
		ahead := int64(chunksAhead)
		if i == 0 {
			ahead = 1 // it may be somebody who looks at the beginning only
		}
		for j := i + 1; j <= i+ahead && j < f.Chunks(); j++ {
			c.start(f, j)
		}
	}
	if len(c.last) > 1024 {
		clear(c.last)
	}
	c.last[f.Root.Hash] = i
	c.mu.Unlock()

	var b []byte
	var err error
	select {
	case <-ch.done:
		b, err = ch.b, ch.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	ch.wanted--
	if ch.wanted == 0 {
		c.forget(chunkKey{f.Root.Hash, i}, ch) // who asked keeps it on the disk
	}
	if err != nil {
		return nil, err
	}
	return b, nil
}

// start returns the chunk, beginning to fetch it if nobody has; c.mu is held.
func (c *chunkCache) start(f dag.File, i int64) *chunk {
	k := chunkKey{f.Root.Hash, i}
	if ch, ok := c.chunks[k]; ok {
		return ch
	}
	for len(c.order) >= chunkMemory && c.evict() {
	}
	// The fetch outlives a caller that gives up, for others may wait; it is
	// cancelled when nobody does.
	ctx, cancel := context.WithCancel(context.Background())
	ch := &chunk{done: make(chan struct{}), cancel: cancel}
	c.chunks[k] = ch
	c.order = append(c.order, k)
	go func() {
		defer cancel()
		ch.b, ch.err = c.r.fetchChunk(ctx, f, i)
		close(ch.done)
	}()
	return ch
}

// evict lets go of the oldest chunk that nobody waits for; c.mu is held.
func (c *chunkCache) evict() bool {
	for _, k := range c.order {
		if ch := c.chunks[k]; ch.wanted == 0 {
			c.forget(k, ch)
			return true
		}
	}
	return false
}

// forget drops a chunk, ending its fetch; c.mu is held.
func (c *chunkCache) forget(k chunkKey, ch *chunk) {
	if c.chunks[k] != ch {
		return
	}
	ch.cancel()
	delete(c.chunks, k)
	for i := range c.order {
		if c.order[i] == k {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
}

// fetchChunk finds a chunk's link in the file's DAG and fetches it.
func (r *Reader) fetchChunk(ctx context.Context, f dag.File, i int64) ([]byte, error) {
	var l link.Link
	err := dag.Chunks(ctx, r, f, i, i+1, func(_ int64, found link.Link) error {
		l = found
		return nil
	})
	if err != nil {
		return nil, err
	}
	b, err := r.Get(ctx, l)
	if err != nil {
		return nil, err
	}
	if want := min(dag.ChunkSize, f.Size-i*dag.ChunkSize); int64(len(b)) != want {
		return nil, fmt.Errorf("chunk %d has %d bytes, not %d: %w", i, len(b), want, readerr.ErrCorrupt)
	}
	return b, nil
}
