package run_test

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/repair/health"
	"skep/repair/run"
	"skep/test/simnet"
	"skep/test/storetest"
)

// TestOnLoopback repairs with full peers and the real protocol: one holder
// ends, another loses its shards, one pack is here and one is not.
func TestOnLoopback(t *testing.T) {
	const (
		k, n  = 2, 5
		scale = 4 * time.Second
	)
	net := simnet.Loopback(t, n+3, simnet.Config{Seed: 31})
	us, all := net.Peers[0], net.Peers[1:]
	owner := storetest.NewOwner(31, erasure.MinClass+2, k, n)
	a := &account{owner: owner, packs: map[uint16]storetest.Pack{}, held: make([]group.Bitmap, n),
		group: group.Group{ID: owner.ID, Class: owner.Class, Coding: owner.Coding}}
	a.give(1, func(l *group.Lease) { l.Until = time.Now().Add(365 * 24 * time.Hour).Unix() })
	known := peers.New(peers.Options{})
	byKey := map[group.PeerKey]*simnet.Peer{}
	for _, p := range all {
		byKey[p.Key] = p
		h, err := us.Client.Hello(t.Context(), p.Key)
		if err != nil {
			t.Fatal(err)
		}
		known.Said(p.Key, h)
	}
	for _, p := range all[:n] {
		a.group.Slots = append(a.group.Slots, p.Key)
	}
	sw := swarm.New(swarm.Config{Holders: us.Client, Finder: us.DHT, Peers: known})
	for number := range uint16(3) {
		p := owner.Pack(t, number)
		acked, err := sw.Store(t.Context(), a.group, a.lease, p.Word, p.Shards, n)
		if err != nil || acked.Count() != n {
			t.Fatalf("%d acknowledged: %v", acked.Count(), err)
		}
		a.packs[number] = p
		a.wanted.Add(number)
		for i := range a.held {
			a.held[i].Add(number)
		}
	}
	a.local.Add(1)

	loop := run.New(run.Config{Health: health.Config{Self: us.Key, Seed: secret.Key{31}, DeadAfter: scale},
		Account: a, Holders: us.Client, Shards: sw, Peers: known, Rand: rand.New(rand.NewPCG(31, 31))})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- loop.Run(ctx) }()
	whole := func() bool {
		r := loop.Report()
		if r.Packs != 3 || r.Missing != 0 {
			return false
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		for slot, key := range a.group.Slots {
			g, ok := byKey[key].Store.Holding(owner.ID)
			if !ok || int(g.Slot) != slot || !g.Held.Contains(a.wanted) || !a.held[slot].Contains(a.wanted) {
				return false
			}
		}
		return true
	}
	await(t, "all is well", whole)

	gone := all[0]
	gone.Stop()
	if err := storetest.Clear(all[1].Store, owner.ID); err != nil {
		t.Fatal(err)
	}
	await(t, "the slot of the dead has a new holder and the hole is filled", func() bool {
		return a.holder(0) != gone.Key && whole()
	})
	if a.moved() != 1 || a.holder(1) != all[1].Key {
		t.Errorf("%d moves", a.moved())
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	// What was built is what the manifests say, also where it came from others.
	ref := group.PackRef{Group: owner.ID, Class: owner.Class, Coding: owner.Coding, Slots: a.group.Slots[:2:2]}
	for number := range uint16(3) {
		ref.Number, ref.Manifest = number, a.packs[number].Word
		if _, _, err := sw.ReadShards(t.Context(), ref); err != nil {
			t.Errorf("pack %d from the two that were repaired: %v", number, err)
		}
	}
}

// await fails the test if something does not become true in a minute.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	late := time.After(time.Minute)
	for !ok() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
