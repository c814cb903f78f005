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
