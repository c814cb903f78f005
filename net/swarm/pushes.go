package swarm

import (
	"context"
	"sync"
	"time"
)

// pushes bounds how many shards go out at once through our own line, of all packs
// together: more the faster they go, so that each has far more of a slow line than holders
// ask for. They go in the order in which they came.
type pushes struct {
	turn chan struct{} // held by the first of those that wait
	left chan struct{} // of one: somebody left

	mu   sync.Mutex // guards both below
	room int
	out  int
}

const (
	leastPushes = 4
	firstPushes = 8
	mostPushes  = 128
	// Of pushes that go faster than this, in bytes a second beside the time of a disk that
	// is slow, there may be more; of those that take twice as long, there are fewer.
	quickPush = 32 << 10
	slowDisk  = 5 * time.Second
	// waitPush is how many bytes of a shard stand for a second that the first of those that
	// wait waits, beside two, when nobody comes to an end: so holders that take their time
	// keep nobody else's shard from going out.
	waitPush = 32 << 10
)

func newPushes(room int) *pushes {
	return &pushes{turn: make(chan struct{}, 1), left: make(chan struct{}, 1), room: room}
}

// do does push, which brings a shard of this size to a peer, when it may go out.
func (p *pushes) do(ctx context.Context, size int, now func() time.Time, push func() error) error {
	if err := p.enter(ctx, size); err != nil {
		return err
	}
	begin := now()
	err := push()
	p.leave(size, now().Sub(begin), err == nil)
	return err
}

// enter waits until a shard may go out, or returns the error of ctx.
func (p *pushes) enter(ctx context.Context, size int) error {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	wait := time.NewTimer(2*time.Second + time.Duration(size)*time.Second/waitPush)
	defer wait.Stop()
	for must := false; !p.take(must); {
		select {
		case <-p.left:
		case <-wait.C:
			must = true
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// take takes a place if there is one, or if it must.
func (p *pushes) take(must bool) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !must && p.out >= p.room {
		return false
	}
	p.out++
	return true
}

// leave gives a place back, of a shard of this size that took so long, or did not get there
// after that time.
func (p *pushes) leave(size int, took time.Duration, there bool) {
	quick := slowDisk + time.Duration(size)*time.Second/quickPush
	p.mu.Lock()
	p.out--
	switch {
	case there && took <= quick:
		p.room = min(max(p.room, p.out)+1, mostPushes)
	case took > 2*quick:
		p.room = max(p.room-1, leastPushes)
	}
	p.mu.Unlock()
	select {
	case p.left <- struct{}{}:
	default:
	}
}
