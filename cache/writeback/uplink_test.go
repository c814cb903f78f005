package writeback

import (
	"testing"
	"time"
)

// The uplink is busy while anything is on its way, however much that is, and not
// between.
func TestUplinkBusy(t *testing.T) {
	var now time.Time
	e := &Engine{cfg: Config{Now: func() time.Time { return now }}}
	after := func(d time.Duration, do func(time.Time)) {
		now = now.Add(d)
		do(now)
	}
	sent := func(n int64) func(time.Time) {
		return func(now time.Time) { e.uplink.end(now, n) }
	}
	after(time.Minute, e.uplink.begin)
	after(2*time.Second, e.uplink.begin) // two at a time
	after(time.Second, sent(100))
	after(time.Second, sent(50))
	after(time.Hour, e.uplink.begin)
	now = now.Add(3 * time.Second)
	if n, busy := e.Uplink(); n != 150 || busy != 7*time.Second {
		t.Errorf("while a pack is on its way: %d bytes in %v, not 150 in 7s", n, busy)
	}
	after(time.Second, sent(0)) // it failed
	now = now.Add(time.Minute)
	if n, busy := e.Uplink(); n != 150 || busy != 8*time.Second {
		t.Errorf("afterwards: %d bytes in %v, not 150 in 8s", n, busy)
	}
}
