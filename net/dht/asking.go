package dht

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// maxAsking is how many streams are open at a time on which others ask. Each may have
// 256 KiB of requests waiting in its window.
const maxAsking = 96

// asking are the streams on which others ask. A new one is never refused: another one
// ends for it.
type asking struct {
	mu    sync.Mutex // guards since, and what is in it
	since map[*guarded]time.Time
}

// enter counts a stream in. If there are too many, of the peer that has the most of them
// the one ends on which nothing was asked for the longest time: honest peers have one or
// two, and open another one if that ends.
func (a *asking) enter(g *guarded, now time.Time) {
	if last := a.add(g, now); last != nil {
		_ = last.Reset()
	}
}

// add counts a stream in and returns the one that is to end for it, if any.
func (a *asking) add(g *guarded, now time.Time) *guarded {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.since[g] = now
	if len(a.since) <= maxAsking {
		return nil
	}
	each := map[peer.ID]int{}
	for g := range a.since {
		each[g.from]++
	}
	var last *guarded
	for g, since := range a.since {
		if last == nil || each[g.from] > each[last.from] || each[g.from] == each[last.from] && since.Before(a.since[last]) {
			last = g
		}
	}
	delete(a.since, last)
	return last
}

// hear notes that something was asked on a stream.
func (a *asking) hear(g *guarded, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, open := a.since[g]; open {
		a.since[g] = now
	}
}

// leave counts a stream out that has ended.
func (a *asking) leave(g *guarded) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.since, g)
}
