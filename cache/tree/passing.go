package tree

import (
	"context"
	"slices"
	"sync"

	"skep/chunker/dag"
)

// passingMax is how many chunks are remembered that there was no room to keep.
const passingMax = 8

// passing are chunks that were read and are not kept on the disk: programs read
// smaller pieces, one after the other.
type passing struct {
	mu     sync.Mutex     // guards chunks
	chunks []passingChunk // the one used last comes first
}

type passingChunk struct {
	f dag.File
	i int64
	b []byte // never changed
}

// read returns a chunk, from memory or fetched. The caller must not change it.
func (p *passing) read(ctx context.Context, from Content, f dag.File, i int64) ([]byte, error) {
	if b, ok := p.get(f, i); ok {
		return b, nil
	}
	b, err := from.ReadChunk(ctx, f, i)
	if err == nil {
		p.add(f, i, b)
	}
	return b, err
}

func (p *passing) get(f dag.File, i int64) ([]byte, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := slices.IndexFunc(p.chunks, func(c passingChunk) bool { return c.f == f && c.i == i })
	if at < 0 {
		return nil, false
	}
	c := p.chunks[at]
	copy(p.chunks[1:at+1], p.chunks[:at])
	p.chunks[0] = c
	return c.b, true
}

func (p *passing) add(f dag.File, i int64, b []byte) {
	if _, there := p.get(f, i); there {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.chunks = slices.Insert(p.chunks, 0, passingChunk{f, i, b})
	if len(p.chunks) > passingMax {
		p.chunks[passingMax] = passingChunk{}
		p.chunks = p.chunks[:passingMax]
	}
}
