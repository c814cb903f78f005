package writeback

import (
	"testing"
	"time"
)

// Better groups are tried ever more seldom while that is in vain, at once if somebody
// waits for it, and as often as before when it was not.
func TestStrivingRests(t *testing.T) {
	var s striving
	now := time.Unix(1e9, 0)
	if !s.may(now) {
		t.Fatal("it rests before anything failed")
	}
	for _, rest := range []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 240, 240} {
		s.failed(now)
		rest *= time.Minute
		if s.may(now.Add(rest-1)) || !s.may(now.Add(rest)) {
			t.Errorf("it does not rest for %v", rest)
		}
		now = now.Add(rest)
	}
	s.failed(now)
	if s.again(); !s.may(now) {
		t.Error("it rests though somebody waits")
	}
	s.worked()
	s.failed(now)
	if !s.may(now.Add(leastVain)) {
		t.Error("it rests for long though it worked meanwhile")
	}
}
