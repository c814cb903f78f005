package client

import (
	"context"
	"sync"

	"skep/chunker/group"
)

// lanes lets so many calls go at once, in total and to each peer.
type lanes struct {
	all  chan struct{}
	each int

	mu     sync.Mutex // guards byPeer
	byPeer map[group.PeerKey]*lane
}

type lane struct {
	slots chan struct{}
	users int // who use or wait for it; guarded by lanes.mu
}

func newLanes(total, each int) lanes {
	return lanes{all: make(chan struct{}, total), each: each, byPeer: map[group.PeerKey]*lane{}}
}

// enter waits for a turn, the peer's first, and returns what ends it, or the
// error of ctx.
func (l *lanes) enter(ctx context.Context, p group.PeerKey) (leave func(), err error) {
	mine := l.join(p)
	select {
	case mine.slots <- struct{}{}:
	case <-ctx.Done():
		l.part(p, mine)
		return nil, ctx.Err()
	}
	select {
	case l.all <- struct{}{}:
	case <-ctx.Done():
		<-mine.slots
		l.part(p, mine)
		return nil, ctx.Err()
	}
	return func() {
		<-l.all
		<-mine.slots
		l.part(p, mine)
	}, nil
}

func (l *lanes) join(p group.PeerKey) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, ok := l.byPeer[p]
	if !ok {
		mine = &lane{slots: make(chan struct{}, l.each)}
		l.byPeer[p] = mine
	}
	mine.users++
	return mine
}

func (l *lanes) part(p group.PeerKey, mine *lane) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(l.byPeer, p)
	}
}
