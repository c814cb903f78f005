package readthrough

import (
	"sync"

	"skep/chunker/block"
	"skep/chunker/erasure"
)

// room is memory for the largest block and what comes with it, as it is asked for
// in whole units. It is used again and again: fresh memory has to be found and
// cleared first, for each chunk that is read.
type room [block.MaxSealed + 2*erasure.Unit]byte

var spare = sync.Pool{New: func() any { return new(room) }}

// rooms are those that one block was fetched into. A nil *rooms gives none.
type rooms struct {
	mu     sync.Mutex // guards the rest
	given  []*room
	fitted bool // what came last
}

// give returns the function by which a source takes rooms.
func (r *rooms) give() func(n int) []byte {
	if r == nil {
		return nil
	}
	return func(n int) []byte {
		if n > len(room{}) {
			return nil
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.given = append(r.given, spare.Get().(*room))
		return r.given[len(r.given)-1][:n]
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
func (r *rooms) last() *room {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fitted || len(r.given) != 1 {
		return nil
	}
	return r.given[0]
}

// free gives the room back, once, when nobody needs the block any more.
func (r *rooms) free() {
	if in := r.last(); in != nil {
		spare.Put(in)
	}
}
