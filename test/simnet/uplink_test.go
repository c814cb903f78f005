package simnet

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/test/storetest"
)

// All shards of packs go out through one line, which may be slow, also those of wide
// codings, and of as many packs as are on their way at once.
func TestStoreOverASlowUplink(t *testing.T) {
	for _, c := range []struct {
		bits, packs int
		class       erasure.Class
		k, n        int
	}{
		{1_000_000, 1, 24, 4, 7},
		{1_000_000, 3, 22, 10, 20},
		{500_000, 3, 22, 4, 7},
	} {
		t.Run(fmt.Sprint(c), func(t *testing.T) { storeOver(t, c.bits, c.packs, c.class, c.k, c.n) })
	}
}

// storeOver stores packs of a coding k of n, all at once, through a line of so many bits a
// second. Each holder takes its shard.
func storeOver(t *testing.T, bits, packs int, class erasure.Class, k, n int) {
	Simulate(t, n+1, Config{}, Link{Latency: 100 * time.Millisecond, Slow: map[int]int{n: bits}}, func(t *testing.T, s *Swarm) {
		w := s.Peers[n]
		sw := swarm.New(swarm.Config{Holders: w.Client, Finder: w.DHT, Peers: peers.New(peers.Options{})})
		o := storetest.NewOwner(1, class, k, n)
		_, lease := o.Lease(1, until())
		var slots []group.PeerKey
		for _, p := range s.Peers[:n] {
			slots = append(slots, p.Key)
		}
		begin := time.Now()
		var all sync.WaitGroup
		for i := range packs {
			p := o.Pack(t, uint16(i))
			g := group.Group{ID: o.ID, Class: p.Manifest.Class, Coding: p.Manifest.Coding, Slots: slots}
			all.Go(func() {
				if set, err := sw.Store(t.Context(), g, lease, p.Word, p.Shards, n); err != nil {
					t.Errorf("pack %d: %d holders took it, after %v: %v", i, set.Count(), time.Since(begin), err)
				}
			})
		}
		all.Wait()
		t.Logf("took %v", time.Since(begin))
	})
}
