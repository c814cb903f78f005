package holder

import (
	"sync"

	"skep/chunker/group"
)

// accounts counts the groups held by who brought them.
type accounts struct {
	mu     sync.Mutex // guards the fields below
	of     map[group.ID]group.PeerKey
	byPeer map[group.PeerKey]int
}

func newAccounts() *accounts {
	return &accounts{of: map[group.ID]group.PeerKey{}, byPeer: map[group.PeerKey]int{}}
}

// count returns how many groups there are, and how many a peer brought.
func (a *accounts) count(p group.PeerKey) (all, of int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.of), a.byPeer[p]
}

// add takes a group in, once.
func (a *accounts) add(id group.ID, p group.PeerKey) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if _, known := a.of[id]; !known {
		a.of[id] = p
		a.byPeer[p]++
	}
}

func (a *accounts) remove(id group.ID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, known := a.of[id]
	if !known {
		return
	}
	delete(a.of, id)
	if a.byPeer[p]--; a.byPeer[p] == 0 {
		delete(a.byPeer, p)
	}
}
