package swarm

import (
	"testing"
	"time"

	"skep/chunker/group"
)

const ms = time.Millisecond

// Who answers evenly is waited for little longer than he takes; the more uneven
// he is, the longer.
func TestPace(t *testing.T) {
	var even, uneven pace
	for i := range 50 {
		even.took(1000, 40*ms, 50*ms)
		uneven.took(1000, 40*ms, time.Duration(41+20*(i%2))*ms)
	}
	if by := even.by(1000); by < 50*ms || by > 55*ms {
		t.Errorf("50 ms each time: by %v", by)
	}
	if by := even.by(11_000); by < 140*ms || by > 160*ms {
		t.Errorf("ten times as many bytes: by %v", by)
	}
	if by := uneven.by(1000); by < 65*ms || by > 120*ms {
		t.Errorf("41 and 61 ms: by %v", by)
	}
}

// One answer that does not come counts for who did not give it, and not for
// those of whom nothing is known.
func TestGivenUpIsNobodyElsesPace(t *testing.T) {
	s := New(Config{})
	good, mute := group.PeerKey{1}, group.PeerKey{2}
	for range 20 {
		s.measured(good, 1000, 10*ms, 10*ms, true)
		s.measured(mute, 1000, 5*time.Second, 5*time.Second, false)
	}
	if by := s.expect(group.PeerKey{3}, 1000); by > 20*ms {
		t.Errorf("a stranger is expected by %v", by)
	}
	if by := s.expect(mute, 1000); by < 5*time.Second {
		t.Errorf("who never came is expected by %v", by)
	}
	if by := s.usual([]group.PeerKey{good, mute}, 1, 1000); by > 20*ms {
		t.Errorf("one of two is usually there by %v", by)
	}
}

// A line is busy while about as much comes as ever did.
func TestLine(t *testing.T) {
	var l line
	now := time.Unix(0, 0)
	if l.busy(now) {
		t.Error("busy before anything came")
	}
	for range 30 {
		now = now.Add(100 * ms)
		l.came(10_000, now)
	}
	if !l.busy(now) {
		t.Error("not busy while all comes")
	}
	if now = now.Add(time.Second); l.busy(now) {
		t.Error("busy a second after the last came")
	}
	l.came(1000, now)
	if l.busy(now) {
		t.Error("busy by a trickle")
	}
}
