package writeback

import (
	"sync/atomic"
	"time"
)

// notice carries to the engine's loop that something changed. Telling it is
// cheap, for every change does: the loop is woken by the first, and looks by
// itself, a few times in the quiet before a commit, whether there were more.
type notice struct {
	count atomic.Uint64 // of what was told
	awake atomic.Bool   // the loop is looking by itself
	wake  chan struct{}
}

func newNotice() notice { return notice{wake: make(chan struct{}, 1)} }

// tell never blocks.
func (n *notice) tell() {
	n.count.Add(1)
	if n.awake.Load() || n.awake.Swap(true) {
		return
	}
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// take forgets what was told until now; what is told from now on wakes the loop.
func (n *notice) take() {
	select {
	case <-n.wake:
	default:
	}
	n.awake.Store(false)
}

// look is the loop's part.
type look struct {
	at   time.Time // when to look again; zero: it will be woken
	seen uint64    // count when it looked last
}

// again notes what was told, and when to look for more.
func (l *look) again(n *notice, at time.Time) {
	n.awake.Store(true)
	l.seen, l.at = n.count.Load(), at
}

// more reports whether something was told since the last look. If not, the loop
// will be woken.
func (l *look) more(n *notice) bool {
	n.awake.Store(false)
	if n.count.Load() != l.seen {
		return true
	}
	l.at = time.Time{}
	return false
}
