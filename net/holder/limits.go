package holder

import (
	"sync"

	"skep/chunker/group"
)

// gate admits so many requests at once, in total and for each peer.
type gate struct {
	total, each int

	mu     sync.Mutex // guards the fields below
	count  int
	byPeer map[group.PeerKey]int
}

func newGate(total, each int) *gate {
	return &gate{total: total, each: each, byPeer: map[group.PeerKey]int{}}
}

// enter reports whether a request of a peer may begin; leave ends it.
func (g *gate) enter(p group.PeerKey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.count >= g.total || g.byPeer[p] >= g.each {
		return false
	}
	g.count++
	g.byPeer[p]++
	return true
}

func (g *gate) leave(p group.PeerKey) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.count--
	if g.byPeer[p]--; g.byPeer[p] == 0 {
		delete(g.byPeer, p)
	}
}

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
