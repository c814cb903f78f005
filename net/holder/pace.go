package holder

import (
	"sync"
	"time"

	"skep/chunker/group"
)

// pace bounds how many requests are taken in a second, in total and of each
// peer: so many in the long run, and those of two seconds at once.
type pace struct {
	total, each time.Duration // from one request to the next

	mu     sync.Mutex // guards the fields below
	all    time.Time  // until when what was taken lasts, at that pace
	byPeer map[group.PeerKey]time.Time
}

// paceAhead is how far ahead of the pace requests may be.
const paceAhead = 2 * time.Second

func newPace(total, each int) *pace {
	return &pace{total: time.Second / time.Duration(total), each: time.Second / time.Duration(each), byPeer: map[group.PeerKey]time.Time{}}
}

// take reports whether one more request of a peer may be taken now.
func (p *pace) take(from group.PeerKey, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	all, mine := later(p.all, now).Add(p.total), later(p.byPeer[from], now).Add(p.each)
	if all.Sub(now) > paceAhead || mine.Sub(now) > paceAhead {
		return false
	}
	p.all, p.byPeer[from] = all, mine
	p.forget(now)
	return true
}

// forget drops the peers that have nothing ahead, when there are many.
func (p *pace) forget(now time.Time) {
	if len(p.byPeer) < 1024 {
		return
	}
	for k, t := range p.byPeer {
		if !t.After(now) {
			delete(p.byPeer, k)
		}
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
