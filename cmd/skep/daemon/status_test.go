package daemon

import (
	"testing"
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
