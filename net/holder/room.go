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

// reserve sets a shard's bytes aside. free is what is neither used nor
// offered to nobody, budget what the group's lease leaves; it returns false for
// the one that does not suffice.
func (r *room) reserve(id group.ID, shardSize int, free, budget int64) (fits, within bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	fits = r.total+footprint(shardSize) <= free
	within = r.byGroup[id]+int64(shardSize) <= budget
	if fits && within {
		r.total += footprint(shardSize)
		r.byGroup[id] += int64(shardSize)
	}
	return fits, within
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
