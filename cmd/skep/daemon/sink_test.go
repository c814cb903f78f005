package daemon

import (
	"context"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"skep/cache/writeback"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
)

// sinkOf is the sink of somebody who knows some peers, of whom some tell of room.
func sinkOf(count, roomy int) *sink {
	known := peers.New(peers.Options{})
	for i := range count {
		h := wire.Hello{Offered: 1 << 30}
		if i < roomy {
			h.Free = 1 << 30
		}
		known.Said(group.PeerKey{byte(i + 1)}, h)
	}
	return &sink{n: &network{self: group.PeerKey{99}, peers: known, swarm: swarm.New(swarm.Config{})}}
}

// Where no peer tells of room, groups of metadata are founded all the same, of small
// shards: the last part of what peers offer is for these. Groups of content are not.
func TestPlanInAFullSwarm(t *testing.T) {
	s := sinkOf(8, 0)
	coding, holders, err := s.Plan(t.Context(), 22, group.Metadata)
	if err != nil || len(holders) != int(coding.N) || coding.ShardSize(22) > wire.SmallShard {
		t.Errorf("%v, %d holders, %v", coding, len(holders), err)
	}
	if _, _, err := s.Plan(t.Context(), 22, group.Content); !errors.Is(err, writeback.ErrNoRoom) {
		t.Errorf("content: %v", err)
	}
	if _, _, err := s.Plan(t.Context(), 26, group.Metadata); !errors.Is(err, writeback.ErrNoRoom) {
		t.Errorf("large shards: %v", err)
	}
}

// Where some tell of room, the others count for metadata as well, unless that would hardly be
// safer; but not while they have no room for it either.
func TestPlanWhereFewTellOfRoom(t *testing.T) {
	for roomy := range 9 {
		s := sinkOf(8, roomy)
		survives := func() int {
			coding, holders, err := s.Plan(t.Context(), 22, group.Metadata)
			if err != nil || len(holders) != int(coding.N) {
				t.Fatalf("%v, %d holders, %v", coding, len(holders), err)
			}
			return int(coding.N - coding.K)
		}
		if n := survives(); n < 2 {
			t.Errorf("of 8 peers %d tell of room: metadata survives %d losses", roomy, n)
		}
		g := group.Group{Kind: group.Metadata}
		s.noteCrammed(g, swarm.ErrTooFew) // not for want of room
		if n := survives(); n < 2 {
			t.Errorf("of 8 peers %d tell of room, and some do not answer: %d losses", roomy, n)
		}
		s.noteCrammed(g, client.ErrFull)
		if n := survives(); roomy == 1 && n > 0 {
			t.Errorf("metadata goes to peers that have no room for it either: %d losses", n)
		}
	}
}

// In a full swarm metadata with one peer alone is weak, though that peer alone tells of room:
// the others take it. Content is not, and nor is metadata while they do not take that either.
func TestMetadataIsWeakInAFullSwarm(t *testing.T) {
	for roomy := range 2 {
		s := sinkOf(8, roomy)
		alone := erasure.NewCoding(1, 1)
		if !s.weak(22, group.Metadata, alone) {
			t.Errorf("of 8 peers %d tell of room, and metadata with one alone is not weak", roomy)
		}
		if s.weak(22, group.Content, alone) {
			t.Errorf("of 8 peers %d tell of room, and content with one alone is weak", roomy)
		}
		if s.noteCrammed(group.Group{Kind: group.Metadata}, client.ErrFull); s.weak(22, group.Metadata, alone) {
			t.Errorf("of 8 peers %d tell of room, and others that have none for metadata count", roomy)
		}
	}
}

// What is planned now is not weak, or it would be stored again for ever.
func TestWhatIsPlannedIsNotWeak(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		known := peers.New(peers.Options{})
		for i := range rapid.IntRange(1, 40).Draw(t, "peers") {
			free := rapid.SampledFrom([]int64{0, 1 << 16, 1 << 20, 3 << 20, 1 << 30}).Draw(t, "free")
			known.Said(group.PeerKey{byte(i + 1)}, wire.Hello{Offered: 1 << 30, Free: free})
		}
		s := &sink{n: &network{self: group.PeerKey{99}, peers: known, swarm: swarm.New(swarm.Config{})}}
		class := erasure.Class(rapid.ByteRange(byte(erasure.MinClass), byte(erasure.MaxClass)).Draw(t, "class"))
		for _, kind := range []group.Kind{group.Content, group.Metadata, group.Metadata} {
			coding, _, err := s.Plan(context.Background(), class, kind)
			if err == nil && s.weak(class, kind, coding) {
				t.Fatalf("%v of class %d is planned in %v, and weak", kind, class, coding)
			}
			s.noteCrammed(group.Group{Kind: kind}, client.ErrFull)
		}
	})
}

// Small shards of content go to no holder that has room for metadata alone; those of metadata
// do, and so do those that are large, which such a holder refuses by itself.
func TestSparing(t *testing.T) {
	known := peers.New(peers.Options{})
	room, full, unknown := group.PeerKey{1}, group.PeerKey{2}, group.PeerKey{3}
	known.Said(room, wire.Hello{Offered: 1 << 30, Free: wire.SmallShard})
	known.Said(full, wire.Hello{Offered: 1 << 30, Free: wire.SmallShard - 1})
	s := &sink{n: &network{self: group.PeerKey{99}, peers: known, swarm: swarm.New(swarm.Config{})}}
	for _, c := range []struct {
		kind   group.Kind
		size   int
		spared bool
	}{
		{group.Content, wire.SmallShard, true},
		{group.Content, wire.SmallShard - 1, false},
		{group.Content, wire.SmallShard + 1, false},
		{group.Metadata, wire.SmallShard, false},
	} {
		g := group.Group{Kind: c.kind, Slots: []group.PeerKey{room, full, unknown}}
		left, spared := s.sparing(g, c.size)
		if spared != c.spared || left.Slots[0] != room || left.Slots[1].IsZero() != c.spared || left.Slots[2] != unknown {
			t.Errorf("%v of %d bytes: spared %v, %v", c.kind, c.size, spared, left.Slots)
		}
		if g.Slots[1] != full {
			t.Error("the group of the caller was changed")
		}
	}
}
