package holder

import (
	"sync"

	"skep/chunker/group"
)

// room is what is promised to shards that are still arriving.
type room struct {
	mu      sync.Mutex // guards the fields below
	total   int64      // bytes on disk
	byGroup map[group.ID]int64
}

func newRoom() *room { return &room{byGroup: map[group.ID]int64{}} }

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

// reserve sets a shard's bytes aside. free is what is left of the offer, budget
// what the group's lease leaves.
func (r *room) reserve(id group.ID, shardSize int, free, budget int64) shortage {
	r.mu.Lock()
	defer r.mu.Unlock()
	need := footprint(shardSize)
	switch {
	case need > free:
		return offerFull
	case r.byGroup[id]+int64(shardSize) > budget:
		return overBudget
	case r.total+need > free:
		return promised
	}
	r.total += need
	r.byGroup[id] += int64(shardSize)
	return noShortage
}

func (r *room) release(id group.ID, shardSize int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total -= footprint(shardSize)
	if r.byGroup[id] -= int64(shardSize); r.byGroup[id] == 0 {
		delete(r.byGroup, id)
	}
}

func (r *room) reserved() int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.total
}
