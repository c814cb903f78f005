package readthrough

import (
	"cmp"
	"context"
	"slices"
	"sync"

	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
)

const (
	// spanLength is how many chunks are fetched together at most.
	spanLength = 4
	// mostSpans is how many there are memory for at once.
	mostSpans = 4
)

// span is some chunks of a file, one after the other, that are fetched together ahead of
// a reader: those that lie side by side in a pack by one request, which brings less
// that nobody wants, and takes less of both sides, than one for each. chunkCache.mu
// guards it.
type span struct {
	in     []*rooms // that the chunks lie in
	left   int      // chunks that somebody may still ask for
	flying bool
	kept   bool // some of the memory is, by a caller
	cancel context.CancelFunc
}

// startSpan begins to fetch the chunks [from, to) of a file that nobody has begun to;
// c.mu is held.
func (c *chunkCache) startSpan(f dag.File, from, to int64) {
	ctx, cancel := context.WithCancel(context.Background())
	s := &span{flying: true, left: int(to - from), cancel: cancel}
	all := make([]*chunk, 0, s.left)
	for i := from; i < to; i++ {
		ch := c.enter(chunkKey{f.Root.Hash, i})
		if ch == nil { // it is here, or on its way
			s.left--
			continue
		}
		ch.span = s
		all = append(all, ch)
	}
	c.spans++
	go func() {
		defer cancel()
		c.r.fetchSpan(ctx, f, s, all)
		c.mu.Lock()
		defer c.mu.Unlock()
		s.flying = false
		c.endSpan(s)
	}()
}

// part says that nobody asks for a chunk of a span any more; c.mu is held.
func (c *chunkCache) part(s *span, kept bool) {
	s.kept = s.kept || kept
	if s.left--; s.left == 0 {
		s.cancel()
		c.endSpan(s)
	}
}

// endSpan frees the memory of a span that nobody needs; c.mu is held.
func (c *chunkCache) endSpan(s *span) {
	if s.flying || s.left > 0 {
		return
	}
	c.spans--
	if s.kept {
		return
	}
	for _, in := range s.in {
		in.free()
	}
}

// located is a chunk of a span, and where it is fetched from.
type located struct {
	*chunk
	link  link.Link
	ref   group.PackRef
	place blockindex.Place
}

// fetchSpan fetches the chunks of a span.
func (r *Reader) fetchSpan(ctx context.Context, f dag.File, s *span, all []*chunk) {
	var found []located
	for _, ch := range all {
		if at, err := r.locate(ctx, f, ch); err == nil {
			found = append(found, at)
		} else {
			ch.end(nil, err)
		}
	}
	var fetches sync.WaitGroup
	for _, side := range sideBySide(found) {
		fetches.Go(func() {
			if len(side) > 1 {
				side = r.fetchTogether(ctx, f, s, side)
			}
			for _, at := range side {
				fetches.Go(func() { at.end(r.fetchChunk(ctx, f, at.index, nil)) })
			}
		})
	}
	fetches.Wait()
}

// locate finds where a chunk is fetched from.
func (r *Reader) locate(ctx context.Context, f dag.File, ch *chunk) (at located, err error) {
	at.chunk = ch
	if at.link, err = r.chunks.link(ctx, f, ch.index); err != nil {
		return at, err
	}
	places, err := r.Places(ctx, at.link)
	if err != nil {
		return at, err
	}
	at.place = places[0]
	at.ref, err = r.ref(at.place)
	return at, err
}

// sideBySide divides chunks into those that lie side by side in a pack, in order.
func sideBySide(found []located) (sides [][]located) {
	slices.SortFunc(found, func(a, b located) int {
		return cmp.Or(slices.Compare(a.place.Group[:], b.place.Group[:]), cmp.Compare(a.place.Number, b.place.Number),
			cmp.Compare(a.place.Offset, b.place.Offset))
	})
	for i, at := range found {
		if i > 0 && isNext(found[i-1].place, at.place) {
			last := &sides[len(sides)-1]
			*last = append(*last, at)
			continue
		}
		sides = append(sides, []located{at})
	}
	return sides
}

// isNext reports whether a block lies right behind another.
func isNext(a, b blockindex.Place) bool {
	return a.Group == b.Group && a.Number == b.Number && uint64(a.Offset)+uint64(a.Length) == uint64(b.Offset)
}

// fetchTogether fetches chunks that lie side by side, and returns those of which that
// did not bring the right bytes.
func (r *Reader) fetchTogether(ctx context.Context, f dag.File, s *span, side []located) (rest []located) {
	first, last := side[0].place, side[len(side)-1].place
	off, n := int(first.Offset), int(last.Offset-first.Offset)+int(last.Length)
	if r.source == nil || off+n > side[0].ref.Class.Size() {
		return side
	}
	part := func(b []byte, at located) []byte {
		return b[at.place.Offset-first.Offset:][:at.place.Length:at.place.Length]
	}
	in := &rooms{of: spanRooms}
	b, fitted, err := r.source.ReadKnown(ctx, side[0].ref, off, n, in.give(), func(b []byte) bool {
		return !slices.ContainsFunc(side, func(at located) bool { return !matches(at.link, part(b, at)) })
	})
	in.used(fitted)
	if err != nil || !fitted {
		return side
	}
	r.chunks.lies(s, in)
	for _, at := range side {
		ct := part(b, at)
		plain, err := block.OpenHashed(at.link, ct, ct)
		if err == nil {
			err = isWhole(f, at.index, plain)
		}
		at.end(plain, err)
	}
	return nil
}

// lies says that chunks of a span lie in rooms.
func (c *chunkCache) lies(s *span, in *rooms) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.in = append(s.in, in)
}
