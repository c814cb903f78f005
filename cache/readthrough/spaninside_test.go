package readthrough

import (
	"testing"

	"skep/chunker/link"
)

// However chunks of spans are given up, before they are here or after, nothing stays
// of a span whose chunks nobody can ask for.
func TestSpansEnd(t *testing.T) {
	for _, flying := range []bool{true, false} {
		for _, kept := range []bool{true, false} {
			var c chunkCache
			c.chunks = map[chunkKey]*chunk{}
			ended := false
			s := &span{left: 2, flying: flying, cancel: func() { ended = true }}
			c.spans = 1
			for i := range int64(2) {
				k := chunkKey{link.Hash{}, i}
				ch := c.enter(k)
				ch.span, ch.kept = s, kept && i == 0
				c.forget(k, ch)
				c.forget(k, ch) // it is none of its any more
				if ended != (i == 1) {
					t.Errorf("after chunk %d the fetch has ended: %v", i, ended)
				}
			}
			if flying {
				if c.spans != 1 {
					t.Error("a span that is being fetched has ended")
				}
				s.flying = false
				c.endSpan(s)
			}
			if c.spans != 0 || s.kept != kept {
				t.Errorf("flying %v, kept %v: %d spans are left, kept: %v", flying, kept, c.spans, s.kept)
			}
		}
	}
}
