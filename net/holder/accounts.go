package holder

import (
	"sync"

	"skep/chunker/group"
)

// accounts counts the groups held by who brought them, and those that are over
// by themselves.
type accounts struct {
	mu   sync.Mutex // guards the fields below
	of   map[group.ID]group.PeerKey
	held map[group.PeerKey]int
	over map[group.PeerKey]map[group.ID]int64 // with the latest end of a lease
	// overAll is how many are over in all.
	overAll int
}

func newAccounts() *accounts {
	return &accounts{of: map[group.ID]group.PeerKey{}, held: map[group.PeerKey]int{}, over: map[group.PeerKey]map[group.ID]int64{}}
}

// count returns how many groups there are that are not over, and how many of
// these a peer brought.
func (a *accounts) count(p group.PeerKey) (all, of int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.of) - a.overAll, a.held[p]
}

// add takes a group in, or what has become of it, and reports whether it is over.
func (a *accounts) add(g *group.Holding) (over bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(g.ID)
	a.of[g.ID] = g.From
	if !g.Over() {
		a.held[g.From]++
		return false
	}
	if a.over[g.From] == nil {
		a.over[g.From] = map[group.ID]int64{}
	}
	a.over[g.From][g.ID] = g.Last
	a.overAll++
	return true
}

func (a *accounts) remove(id group.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.removeLocked(id)
}

func (a *accounts) removeLocked(id group.ID) {
	p, known := a.of[id]
	if !known {
		return
	}
	delete(a.of, id)
	if _, over := a.over[p][id]; over {
		a.overAll--
		if delete(a.over[p], id); len(a.over[p]) == 0 {
			delete(a.over, p)
		}
		return
	}
	if a.held[p]--; a.held[p] == 0 {
		delete(a.held, p)
	}
}

// eldestOver returns, if more than so many are over, the one of those of the peer
// which has most of them that ends first.
func (a *accounts) eldestOver(most int) (eldest group.ID, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.overAll <= most {
		return eldest, false
	}
	var theirs map[group.ID]int64
	for _, of := range a.over {
		if len(of) > len(theirs) {
			theirs = of
		}
	}
	for id, end := range theirs {
		if !ok || end < theirs[eldest] {
			eldest, ok = id, true
		}
	}
	return eldest, ok
}
