package readthrough

import (
	"context"
	"fmt"
	"math/bits"
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
	// linkRun is how many links are taken from a node of a file at a time. A
	// node has 174, six times as many, so that no second one is fetched for it.
	linkRun = 29
	// linkMemory is how many links are kept.
	linkMemory = 1024
)

// chunkCache fetches chunks of files, each once, ahead of those who read in
// order.
type chunkCache struct {
	r *Reader

	mu     sync.Mutex // guards all below
	chunks map[chunkKey]*chunk
	order  []chunkKey // oldest first
	last   map[link.Hash]progress
	spans  int                    // that there is memory in use for
	links  map[chunkKey]link.Link // of chunks that may be read next
}

type chunkKey struct {
	root  link.Hash
	index int64
}

// progress is how far a reader has come in a file, and up to which chunk those ahead
// of him were begun. The kernel, and the tree, ask for some chunks at once, in whatever
// order they come to it.
type progress struct {
	first, at, begun int64
	seen             uint8 // bit i: chunk at-i was wanted
}

// A reader may want chunks before others that he has not wanted yet, up to so many.
const jump = 4

// want takes note that a chunk is wanted. Another reader begins where it is far from
// those before.
func (p *progress) want(i int64) {
	switch d := i - p.at; {
	case d > 0 && d <= jump:
		p.seen, p.at = p.seen<<d|1, i
	case d <= 0 && d > -8 && i >= p.first:
		p.seen |= 1 << -d
	default:
		*p = progress{first: i, at: i, begun: i, seen: 1}
	}
	p.begun = max(p.begun, p.at)
}

// inOrder reports whether the reader goes through the file in order: that hardly a
// chunk is left out, of the last eight.
func (p *progress) inOrder() bool {
	n := int(min(8, p.at-p.first+1))
	missing := n - bits.OnesCount8(p.seen&(1<<n-1))
	return n > 1 && missing <= n/4
}

// chunk is fetched or on its way; done is closed when b and err are set.
type chunk struct {
	index  int64
	done   chan struct{}
	b      []byte
	err    error
	in     rooms              // that b may lie in, unless it is of a span
	span   *span              // nil: it is fetched alone
	cancel context.CancelFunc // of one that is fetched alone
	wanted int                // callers that wait or look; guarded by chunkCache.mu
	kept   bool               // by a caller; guarded by chunkCache.mu
}

// ReadChunk implements tree.Content.
func (r *Reader) ReadChunk(ctx context.Context, f dag.File, i int64) ([]byte, error) {
	var b []byte
	err := r.chunks.read(ctx, f, i, true, func(chunk []byte) { b = chunk })
	return b, classify(err)
}

// LendChunk implements tree.Content.
func (r *Reader) LendChunk(ctx context.Context, f dag.File, i int64, use func(chunk []byte)) error {
	return classify(r.chunks.read(ctx, f, i, false, use))
}

// read calls use with a chunk, which keeps it if keep says so.
func (c *chunkCache) read(ctx context.Context, f dag.File, i int64, keep bool, use func(chunk []byte)) error {
	ch := c.want(f, i, keep)
	var err error
	select {
	case <-ch.done:
		err = ch.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if err == nil {
		use(ch.b)
	}
	c.leave(chunkKey{f.Root.Hash, i}, ch)
	return err
}

// want returns a chunk on its way, which is there until leave, and begins to fetch
// those behind it for a reader that goes through the file in order.
func (c *chunkCache) want(f dag.File, i int64, keep bool) *chunk {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.chunks == nil {
		c.chunks, c.last, c.links = map[chunkKey]*chunk{}, map[link.Hash]progress{}, map[chunkKey]link.Link{}
	}
	ch := c.start(f, i)
	ch.wanted++
	ch.kept = ch.kept || keep
	c.follow(f, i)
	return ch
}

// follow begins to fetch what is ahead of a reader who wants chunk i, if he goes
// through the file in order; c.mu is held.
func (c *chunkCache) follow(f dag.File, i int64) {
	if len(c.last) > 1024 {
		clear(c.last)
	}
	p, known := c.last[f.Root.Hash]
	if !known {
		p.at = -8 * jump // far from all
	}
	p.want(i)
	if p.inOrder() {
		p.begun = c.ahead(f, p.begun+1, min(p.at+chunksAhead, f.Chunks()-1))
	} else if i == 0 && p.at == 0 && f.Chunks() > 1 { // it may be somebody who looks at the beginning only
		c.start(f, 1)
		p.begun = max(p.begun, 1)
	}
	c.last[f.Root.Hash] = p
}

// ahead begins to fetch chunks from one to a last one, in spans, and returns up to
// which it has: less than a span waits until there are more, unless the file ends;
// c.mu is held.
func (c *chunkCache) ahead(f dag.File, from, last int64) int64 {
	for from <= last {
		to := min(from+spanLength, last+1)
		switch {
		case to-from < spanLength && to < f.Chunks():
			return from - 1
		case c.spans < mostSpans:
			c.startSpan(f, from, to)
		default:
			for j := from; j < to; j++ {
				c.start(f, j)
			}
		}
		from = to
	}
	return from - 1
}

// leave says that a caller needs a chunk no more. Nobody else does who comes
// later: who asked keeps it on the disk.
func (c *chunkCache) leave(k chunkKey, ch *chunk) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ch.wanted--; ch.wanted > 0 {
		return
	}
	c.forget(k, ch)
	select {
	case <-ch.done:
		if !ch.kept && ch.span == nil {
			ch.in.free()
		}
	default: // it was being fetched, and who asked gave up
		c.endAhead(k.root)
	}
}

// endAhead ends what is on its way ahead of the readers of a file, if none is left that
// waits; c.mu is held.
func (c *chunkCache) endAhead(root link.Hash) {
	var ahead []chunkKey
	for _, k := range c.order {
		if k.root != root {
			continue
		}
		if c.chunks[k].wanted > 0 {
			return
		}
		ahead = append(ahead, k)
	}
	for _, k := range ahead {
		c.forget(k, c.chunks[k])
	}
	delete(c.last, root) // what was begun is not there any more
}

// end says what became of a chunk.
func (ch *chunk) end(b []byte, err error) {
	ch.b, ch.err = b, err
	close(ch.done)
}

// failed reports whether the fetch of a chunk has ended, and has failed.
func (ch *chunk) failed() bool {
	select {
	case <-ch.done:
		return ch.err != nil
	default:
		return false
	}
}

// known returns the chunk that is here or on its way, or nil. One that could not be
// fetched when nobody wanted it is forgotten: that may be long ago; c.mu is held.
func (c *chunkCache) known(k chunkKey) *chunk {
	ch := c.chunks[k]
	if ch != nil && ch.wanted == 0 && ch.failed() {
		c.forget(k, ch)
		return nil
	}
	return ch
}

// start returns the chunk, beginning to fetch it if nobody has; c.mu is held.
func (c *chunkCache) start(f dag.File, i int64) *chunk {
	k := chunkKey{f.Root.Hash, i}
	if ch := c.known(k); ch != nil {
		return ch
	}
	ch := c.enter(k)
	// The fetch outlives a caller that gives up, for others may wait; it is
	// cancelled when nobody does.
	ctx, cancel := context.WithCancel(context.Background())
	ch.cancel = cancel
	go func() {
		defer cancel()
		ch.end(c.r.fetchChunk(ctx, f, i, &ch.in))
	}()
	return ch
}

// enter makes a new chunk, unless it is there; c.mu is held.
func (c *chunkCache) enter(k chunkKey) *chunk {
	if c.known(k) != nil {
		return nil
	}
	for len(c.order) >= chunkMemory && c.evict() {
	}
	ch := &chunk{index: k.index, done: make(chan struct{})}
	c.chunks[k] = ch
	c.order = append(c.order, k)
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
	if ch.span != nil {
		c.part(ch.span, ch.kept)
	} else {
		ch.cancel()
	}
	delete(c.chunks, k)
	for i := range c.order {
		if c.order[i] == k {
			c.order = append(c.order[:i], c.order[i+1:]...)
			break
		}
	}
}

// link finds a chunk's link in the file's DAG, and keeps those beside it.
func (c *chunkCache) link(ctx context.Context, f dag.File, i int64) (link.Link, error) {
	key := func(i int64) chunkKey { return chunkKey{f.Root.Hash, i} }
	c.mu.Lock()
	l, ok := c.links[key(i)]
	c.mu.Unlock()
	if ok {
		return l, nil
	}
	first := i / linkRun * linkRun
	run := make([]link.Link, 0, linkRun)
	err := dag.Chunks(ctx, c.r, f, first, min(first+linkRun, f.Chunks()), func(_ int64, found link.Link) error {
		run = append(run, found)
		return nil
	})
	if err != nil {
		return link.Link{}, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.links) >= linkMemory {
		clear(c.links)
	}
	for n, l := range run {
		c.links[key(first+int64(n))] = l
	}
	return run[i-first], nil
}

// fetchChunk finds a chunk and fetches it.
func (r *Reader) fetchChunk(ctx context.Context, f dag.File, i int64, in *rooms) ([]byte, error) {
	l, err := r.chunks.link(ctx, f, i)
	if err != nil {
		return nil, err
	}
	b, err := r.find(ctx, l, in, open(l))
	if err != nil {
		return nil, err
	}
	return b, isWhole(f, i, b)
}

// isWhole returns an error if chunk i of a file is not as long as it has to be.
func isWhole(f dag.File, i int64, b []byte) error {
	if want := min(dag.ChunkSize, f.Size-i*dag.ChunkSize); int64(len(b)) != want {
		return fmt.Errorf("chunk %d has %d bytes, not %d: %w", i, len(b), want, readerr.ErrCorrupt)
	}
	return nil
}
