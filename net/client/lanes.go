package client

import (
	"context"
	"fmt"
	"sync"

	"skep/chunker/group"
)

// places are so many turns.
type places chan struct{}

// take waits for a turn, and returns what ends it, or ErrWaited with the error of ctx.
func (p places) take(ctx context.Context) (leave func(), err error) {
	select {
	case p <- struct{}{}:
		return func() { <-p }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: %w", ErrWaited, ctx.Err())
	}
}

// lanes lets so many calls to each peer go at once.
type lanes struct {
	each int

	mu     sync.Mutex // guards byPeer
	byPeer map[group.PeerKey]*lane
}

type lane struct {
	slots places
	users int // who use or wait for it; guarded by lanes.mu, as pushes is
	// pushes are the shards on their way to the peer, for which all else that goes there
	// may have to wait: they fill the connection.
	pushes int
}

func newLanes(each int) lanes {
	return lanes{each: each, byPeer: map[group.PeerKey]*lane{}}
}

// enter waits for a turn with a peer, and returns what ends it, or the error of
// take.
func (l *lanes) enter(ctx context.Context, p group.PeerKey) (leave func(), err error) {
	mine := l.join(p)
	end, err := mine.slots.take(ctx)
	if err != nil {
		l.part(p, mine)
		return nil, err
	}
	return func() {
		end()
		l.part(p, mine)
	}, nil
}

func (l *lanes) join(p group.PeerKey) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, ok := l.byPeer[p]
	if !ok {
		mine = &lane{slots: make(places, l.each)}
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

// push takes note that a shard goes to a peer, by somebody who has entered, until done is
// called.
func (l *lanes) push(p group.PeerKey) (done func()) {
	add := func(n int) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.byPeer[p].pushes += n
	}
	add(1)
	return func() { add(-1) }
}

// pushing reports whether a shard goes to a peer.
func (l *lanes) pushing(p group.PeerKey) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	mine, ok := l.byPeer[p]
	return ok && mine.pushes > 0
}
