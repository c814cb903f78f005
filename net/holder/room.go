package holder

import (
	"sync"

	"skep/chunker/group"
)

// room is what is promised to shards that are still arriving.
type room struct {
	mu       sync.Mutex                  // guards the fields below
	total    int64                       // bytes on disk
	arriving map[group.ID]map[uint16]int // how many shards of each pack
}

func newRoom() *room { return &room{arriving: map[group.ID]map[uint16]int{}} }

// footprint is at most what a shard takes on disk: its bytes, its tree and the
// manifest, in whole pages.
func footprint(shardSize int) int64 { return int64(shardSize + shardSize/256 + 16<<10) }

// Why no room could be set aside.
type shortage int

const (
	noShortage shortage = iota
	offerFull           // the offer is used up
	promised            // what is left of it is promised to shards that are arriving
	overBudget          // the group's lease does not leave as much
)

// reserve sets a shard's bytes aside. look tells what is left of the offer, and what
// is held of the group: it is asked after those whose shards have come have given
// back what was set aside for them, so that nothing is missed between.
func (r *room) reserve(m *group.Manifest, look func() (free int64, g group.Holding)) shortage {
	r.mu.Lock()
	defer r.mu.Unlock()
	free, g := look()
	need := footprint(m.ShardSize())
	switch {
	case need > free:
		return offerFull
	case r.wouldHold(m, g.Held)*int64(m.ShardSize()) > g.Lease.Bytes:
		return overBudget
	case r.total+need > free:
		return promised
	}
	r.total += need
	if r.arriving[m.Group] == nil {
		r.arriving[m.Group] = map[uint16]int{}
	}
	r.arriving[m.Group][m.Number]++
	return noShortage
}

// wouldHold is how many shards of a group there will be with one more and those that
// are arriving. Caller holds mu.
func (r *room) wouldHold(m *group.Manifest, held group.Bitmap) int64 {
	for n := range r.arriving[m.Group] {
		held.Add(n)
	}
	held.Add(m.Number)
	return int64(held.Count())
}

func (r *room) release(m *group.Manifest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total -= footprint(m.ShardSize())
	of := r.arriving[m.Group]
	if of[m.Number]--; of[m.Number] == 0 {
		delete(of, m.Number)
	}
	if len(of) == 0 {
		delete(r.arriving, m.Group)
	}
}

func (r *room) reserved() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}
