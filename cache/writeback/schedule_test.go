package writeback

import (
	"errors"
	"testing"
	"time"
)

// A commit that failed is tried again also while a program writes all the time.
func TestFailedCommitIsTriedAgainWhileMuchChanges(t *testing.T) {
	now := time.Unix(1000, 0)
	s := &schedule{t: DefaultTiming}
	s.changed(now)
	for range 10 {
		s.committed(now, errors.New("no holders"))
		failed := now
		for {
			at, ok := s.commitDue()
			if !ok {
				t.Fatal("no commit is due")
			}
			if !now.Before(at) {
				break
			}
			if now = now.Add(time.Second); now.Sub(failed) > DefaultTiming.Most {
				t.Fatalf("nothing was tried for %v", now.Sub(failed))
			}
			s.changed(now)
		}
	}
}

// Counting leaves most of the processor to those who use the drive, and does not rest for
// the time in which it waited for peers.
func TestCountingRests(t *testing.T) {
	now := time.Unix(1000, 0)
	for _, c := range []struct{ took, rest time.Duration }{
		{0, 0},
		{10 * time.Millisecond, restsFor * 10 * time.Millisecond},
		{time.Minute, longestCountRest},
	} {
		s := &schedule{t: DefaultTiming, review: now.Add(time.Hour)}
		s.counted(now, c.took, true, nil)
		if got := s.wait(now); got != c.rest {
			t.Errorf("a step of %v is followed by a rest of %v, should be %v", c.took, got, c.rest)
		}
	}
}
