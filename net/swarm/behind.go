package swarm

import (
	"context"
	"sync"
	"time"
)

// directoryPatience is how long Put waits for the directory when a keeper has a copy.
const directoryPatience = 2 * time.Second

// mostBehind is how many puts to the directory go on at once for which nobody waits.
const mostBehind = 64

// behind are puts that go on when their callers do not wait for them any more.
type behind struct {
	mu     sync.Mutex // guards both below
	closed bool
	puts   map[chan struct{}]context.CancelFunc // what ends them, by what is closed when they have ended
}

// do begins a put that may take so long in all, and returns when it has ended, or when
// wait is over: then it goes on, if there is room for it. If ctx ends before, so does it.
func (b *behind) do(ctx context.Context, wait, all time.Duration, put func(context.Context)) {
	own, cancel := context.WithTimeout(context.WithoutCancel(ctx), all)
	ended := make(chan struct{})
	go func() {
		defer cancel()
		put(own)
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.puts, ended)
		close(ended)
	}()
	patience := time.NewTimer(wait)
	defer patience.Stop()
	select {
	case <-ended:
		return
	case <-patience.C:
		if b.leave(ended, cancel) {
			return
		}
	case <-ctx.Done():
	}
	cancel()
	<-ended
}

// leave lets a put go on that may have ended meanwhile. It returns false if there is no
// room for it.
func (b *behind) leave(ended chan struct{}, cancel context.CancelFunc) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	select {
	case <-ended:
		return true
	default:
	}
	if b.closed || len(b.puts) >= mostBehind {
		return false
	}
	if b.puts == nil {
		b.puts = map[chan struct{}]context.CancelFunc{}
	}
	b.puts[ended] = cancel
	return true
}

// close ends those that go on, and waits for them. None is left to itself any more.
func (b *behind) close() {
	b.mu.Lock()
	b.closed = true
	var left []chan struct{}
	for ended, cancel := range b.puts {
		cancel()
		left = append(left, ended)
	}
	b.mu.Unlock()
	for _, ended := range left {
		<-ended
	}
}
