package writeback

import (
	"testing"
	"time"
)

// TestPendingIsToldAgain: what took long to count is told again for some time, but
// not what was so before a commit ended.
func TestPendingIsToldAgain(t *testing.T) {
	var p pending
	now := time.Now()
	if p.holds(now, 0) {
		t.Error("what was never counted is told")
	}
	const took = time.Second
	p.counted(pendingCount{3, 4}, now.Add(-took), now, 7)
	for after, want := range map[time.Duration]bool{0: true, tellsFor*took - 1: true, tellsFor * took: false} {
		if got := p.holds(now.Add(after), 7); got != want {
			t.Errorf("%v after a count that took %v: told again %v", after, took, got)
		}
	}
	if p.holds(now, 8) {
		t.Error("what was counted before a commit ended is told after it")
	}
	if p.entries != 3 || p.bytes != 4 {
		t.Errorf("told %d and %d", p.entries, p.bytes)
	}
}
