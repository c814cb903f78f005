package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"skep/net/peers"
)

// A holder that answered in this run is not called unknown, though repair has not met it
// yet; one that answered an earlier run is.
func TestStateOfHolders(t *testing.T) {
	began := time.Now()
	seen := func(at time.Duration) peers.Peer { return peers.Peer{State: peers.Alive, LastSeen: began.Add(at)} }
	for _, tt := range []struct {
		judged peers.State
		p      peers.Peer
		want   peers.State
	}{
		{peers.Unknown, seen(time.Second), peers.Alive},
		{peers.Unknown, seen(-time.Second), peers.Unknown},
		{peers.Unknown, peers.Peer{State: peers.Unknown}, peers.Unknown},
		{peers.Dead, seen(time.Second), peers.Dead},
		{peers.Alive, seen(-time.Second), peers.Alive},
	} {
		if got := heldState(tt.judged, tt.p, began); got != tt.want {
			t.Errorf("judged %v, in the directory %+v: %v, want %v", tt.judged, tt.p, got, tt.want)
		}
	}
}

// What is waited for ends sooner if something is worth it, and never later.
func TestRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		for _, tt := range []struct{ from, want time.Duration }{
			{time.Hour, 10 * time.Minute}, {0, time.Minute}, {150 * time.Second, 3 * time.Minute},
		} {
			begin = time.Now()
			restUntil(t.Context(), 10*time.Minute, time.Minute, func() bool { return time.Since(begin) >= tt.from })
			if took := time.Since(begin); took != tt.want {
				t.Errorf("worth it after %v, it ends after %v", tt.from, took)
			}
		}
		restUntil(t.Context(), 0, time.Minute, func() bool { return false }) // the first look is at once
		if took := time.Since(begin); took != 3*time.Minute {
			t.Errorf("what is due at once came after %v", took)
		}
	})
}
