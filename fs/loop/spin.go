package loop

import (
	"sync/atomic"
	"time"
)

// spinTime is how long the last reader tries to read before it sleeps.
const spinTime = 50 * time.Microsecond

// mostSkipped is how many sleeps in a row come without trying first, at most.
const mostSkipped = 15

// spinning decides before which sleeps it is tried to read. The more often that
// brought nothing, the more rarely it is done; but it never ends, as one success
// is all it takes to know better. While others want the processors it is not
// done at all.
type spinning struct {
	never  bool         // it would keep others from running who are waited for
	failed atomic.Int32 // how often it brought nothing, one after the other
	skip   atomic.Int32 // sleeps to come without it
	crowd  crowd
}

// due reports whether to try before this sleep; now is the time since any
// moment that stays the same.
func (s *spinning) due(now time.Duration) bool {
	if s.never {
		return false
	}
	if n := s.skip.Load(); n > 0 {
		s.skip.Store(n - 1)
		return false
	}
	return !s.crowd.there(now)
}

// paid says that trying brought a request, or would have.
func (s *spinning) paid() {
	s.failed.Store(0)
	s.skip.Store(0)
}

// vain says that trying brought nothing.
func (s *spinning) vain() {
	n := min(s.failed.Load()+1, 4)
	s.failed.Store(n)
	s.skip.Store(min(int32(1)<<n-1, mostSkipped))
}
