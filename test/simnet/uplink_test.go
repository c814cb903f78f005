package simnet

import (
	"sync"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/test/storetest"
)

// All shards of packs go out through one line, which may be slow.
func TestStoreOverASlowUplink(t *testing.T) {
	for bits, packs := range map[int]int{1_000_000: 1, 8_000_000: 2} {
		const k, n, class, enough = 4, 7, 24, 7
		Simulate(t, n+1, Config{}, Link{Latency: 100 * time.Millisecond, Slow: map[int]int{n: bits}}, func(t *testing.T, s *Swarm) {
			w := s.Peers[n]
			sw := swarm.New(swarm.Config{Holders: w.Client, Finder: w.DHT, Peers: peers.New(peers.Options{})})
			o := storetest.NewOwner(1, class, k, n)
			_, lease := o.Lease(1, until())
			var slots []group.PeerKey
			for _, p := range s.Peers[:n] {
				slots = append(slots, p.Key)
			}
			var all sync.WaitGroup
			for i := range packs {
				p := o.Pack(t, uint16(i))
				g := group.Group{ID: o.ID, Class: p.Manifest.Class, Coding: p.Manifest.Coding, Slots: slots}
				all.Go(func() {
					begin := time.Now()
					if set, err := sw.Store(t.Context(), g, lease, p.Word, p.Shards, enough); err != nil {
						t.Errorf("pack %d of %d at %d bit/s: %d holders took it, after %v: %v", i, packs, bits, set.Count(), time.Since(begin), err)
					}
				})
			}
			all.Wait()
		})
	}
}
