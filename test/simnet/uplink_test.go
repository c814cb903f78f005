package simnet

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
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
		t.Run(fmt.Sprint(c), func(t *testing.T) { storeOver(t, c.bits, c.packs, c.class, c.k, c.n, nil) })
	}
}

// Who failed lately may have failed as our line did: after a time without it, packs go out
// as before. One who is gone takes no time from those of the other packs. And one who is
// near, and has his shard at once, says nothing about the line to the others.
func TestStoreBesideOthers(t *testing.T) {
	for name, c := range map[string]struct {
		bits, packs int
		class       erasure.Class
		k, n        int
		fails       failing
	}{
		"the line did not work": {1_000_000, 3, 22, 10, 20, failing{first: 20 * time.Second}},
		"one holder is gone":    {500_000, 3, 22, 4, 7, failing{gone: true}},
		"one holder is near":    {1_000_000, 1, 24, 4, 7, failing{near: true}},
	} {
		t.Run(name, func(t *testing.T) { storeOver(t, c.bits, c.packs, c.class, c.k, c.n, &c.fails) })
	}
}

// failing are holders whom nobody reaches at first, or of whom one is gone for good, or near.
type failing struct {
	swarm.Holders
	first time.Duration
	gone  bool
	near  bool
	begin time.Time
	peer  group.PeerKey // who is gone, or near
}

func (f *failing) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	if time.Since(f.begin) < f.first || f.gone && p == f.peer {
		return &client.Error{Peer: p, Err: client.ErrUnreachable}
	}
	if f.near && p == f.peer {
		return nil
	}
	return f.Holders.Put(ctx, p, manifest, slot, shard)
}

// storeOver stores packs of a coding k of n, all at once, through a line of so many bits a
// second. Each holder that is there takes its shard; what failed is tried again.
func storeOver(t *testing.T, bits, packs int, class erasure.Class, k, n int, fails *failing) {
	Simulate(t, n+1, Config{}, Link{Latency: 100 * time.Millisecond, Slow: map[int]int{n: bits}}, func(t *testing.T, s *Swarm) {
		w := s.Peers[n]
		conf, enough := swarm.Config{Holders: w.Client, Finder: w.DHT, Peers: peers.New(peers.Options{})}, n
		if fails != nil {
			fails.Holders, fails.begin, fails.peer = w.Client, time.Now(), s.Peers[0].Key
			conf.Holders = fails
		}
		if fails != nil && fails.gone {
			conf.Silent, enough = func(p group.PeerKey) bool { return p == fails.peer }, n-1
		}
		sw := swarm.New(conf)
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
				const tries = 6
				for try := 1; ; try++ {
					set, err := sw.Store(t.Context(), g, lease, p.Word, p.Shards, enough)
					if err == nil {
						return
					}
					if try == tries {
						t.Errorf("pack %d: %d holders took it, after %v: %v", i, set.Count(), time.Since(begin), err)
						return
					}
					time.Sleep(min(time.Second<<try, 30*time.Second))
				}
			})
		}
		all.Wait()
		t.Logf("took %v", time.Since(begin))
	})
}
