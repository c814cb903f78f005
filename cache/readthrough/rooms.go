package readthrough

import (
	"sync"

	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/erasure"
)

// A kind of rooms is memory for what comes from a source, with what comes along as it
// is asked for in whole units. It is used again and again: fresh memory has to be found
// and cleared first, for each chunk that is read.
type kind struct {
	size  int
	spare sync.Pool // of *[]byte
}

var (
	blockRooms = &kind{size: block.MaxSealed + 2*erasure.Unit}                           // for the largest block
	spanRooms  = &kind{size: spanLength*(dag.ChunkSize+block.Overhead) + 2*erasure.Unit} // for the chunks of a span
)

func (k *kind) get() *[]byte {
	if b, ok := k.spare.Get().(*[]byte); ok {
		return b
	}
	b := make([]byte, k.size)
	return &b
}

// rooms are those that one block, or span, was fetched into. A nil *rooms gives none.
type rooms struct {
	of     *kind      // nil: blockRooms
	mu     sync.Mutex // guards the rest
	given  []*[]byte
	fitted bool // what came last
}

func (r *rooms) kind() *kind {
	if r.of == nil {
		return blockRooms
	}
	return r.of
}

// give returns the function by which a source takes rooms.
func (r *rooms) give() func(n int) []byte {
	if r == nil {
		return nil
	}
	return func(n int) []byte {
		if n > r.kind().size {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		in := r.kind().get()
		r.given = append(r.given, in)
		return (*in)[:n]
	}
}

// used says that a source has returned; and whether what it returned fitted, which
// means that nobody writes to the room where that lies.
func (r *rooms) used(fitted bool) {
	if r == nil {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fitted = fitted
}

// last is the room that nobody else writes to, if it is sure that there is one: if
// several were given, who was slower may still write to his.
func (r *rooms) last() *[]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fitted || len(r.given) != 1 {
		return nil
	}
	return r.given[0]
}

// free gives the room back, once, when nobody needs what lies in it any more.
func (r *rooms) free() {
	if in := r.last(); in != nil {
		r.kind().spare.Put(in)
	}
}
