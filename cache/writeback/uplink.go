package writeback

import (
	"sync"
	"time"
)

// uplink counts what was sent, and the time in which something was on its way.
// Between two packs a commit reads, seals and rests; that says nothing of how much
// the uplink takes.
type uplink struct {
	mu     sync.Mutex // guards all below
	sent   int64
	busy   time.Duration // until since
	flying int           // packs on their way
	since  time.Time     // when their number changed last
}

// begin says that a pack is on its way from now on.
func (u *uplink) begin(now time.Time) { u.change(now, 1, 0) }

// end says that a pack is on its way no more, and that n bytes of it arrived.
func (u *uplink) end(now time.Time, n int64) { u.change(now, -1, n) }

func (u *uplink) change(now time.Time, packs int, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.busy, u.since = u.busyUntil(now), now
	u.flying += packs
	u.sent += n
}

// busyUntil is the time until now in which something was on its way; u.mu is held.
func (u *uplink) busyUntil(now time.Time) time.Duration {
	if u.flying == 0 {
		return u.busy
	}
	return u.busy + max(0, now.Sub(u.since))
}

// Uplink tells how many bytes of packs were stored since the engine was made, and
// in how much time, that in which nothing was on its way left out.
func (e *Engine) Uplink() (sent int64, busy time.Duration) {
	u := &e.uplink
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.sent, u.busyUntil(e.now())
}
