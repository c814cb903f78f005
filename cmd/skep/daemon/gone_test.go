package daemon

import (
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/net/swarm"
	"skep/net/wire"
	"skep/repair/plan"
)

// Peers that were met once and are gone count neither for the plan nor for df, and
// status says so: by one rule. When they come back, they count.
func TestPeersThatAreGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		known := peers.New(peers.Options{})
		hello := func(from, to int) {
			for i := from; i < to; i++ {
				known.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 40, Free: 1 << 40})
			}
		}
		n := &network{self: group.PeerKey{99}, peers: known, swarm: swarm.New(swarm.Config{})}
		d := &Daemon{net: n}
		s := &sink{n: n}
		expect := func(when string, count int, states map[string]int, room int) {
			t.Helper()
			if p := plan.Of(n.candidates()); p.Peers != count {
				t.Errorf("%s: the plan is for %d peers, want %d: %s", when, p.Peers, count, p.Summary())
			}
			got := map[string]int{}
			for _, p := range d.peerStatus(nil) {
				got[p.State]++
			}
			for state, want := range states {
				if got[state] != want {
					t.Errorf("%s: %v, want %v", when, got, states)
				}
			}
			if got, want := s.room().Free, roomOf(known, room); got != want {
				t.Errorf("%s: room for %d bytes, want that of %d peers, %d", when, got, room, want)
			}
		}
		hour := func() {
			time.Sleep(time.Hour)
			hello(0, 8)
			for i := 8; i < 48; i++ {
				known.Missed(group.PeerKey{byte(i + 1)})
			}
		}
		hello(0, 48)
		expect("all are there", 48, map[string]int{"alive": 48}, 48)
		for range 7 {
			hour()
		}
		expect("40 are silent for hours", 8, map[string]int{"alive": 8, "suspect": 40}, 48)
		for range 3 * 24 {
			hour()
		}
		expect("40 are silent for days", 8, map[string]int{"alive": 8, "dead": 40}, 8)
		time.Sleep(30 * 24 * time.Hour)
		expect("nobody answers for a month", 8, map[string]int{"unknown": 8, "dead": 40}, 8)
		hello(8, 9)
		expect("one is back", 9, map[string]int{"unknown": 8, "dead": 39, "alive": 1}, 9)
	})
}

// roomOf is what the first n peers could store.
func roomOf(known *peers.Directory, n int) int64 {
	var of []place.Candidate
	for _, p := range known.List()[:n] {
		of = append(of, p.Candidate(0))
	}
	return plan.Storable(contentClass, of)
}
