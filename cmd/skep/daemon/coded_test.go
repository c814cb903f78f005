package daemon

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/cache/writeback"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/place"
)

// swarmOf are peers with so much free room each.
func swarmOf(free ...int64) []place.Candidate {
	out := make([]place.Candidate, len(free))
	for i, n := range free {
		out[i] = place.Candidate{Key: group.PeerKey{1, byte(i)}, Free: n, Availability: 0.9}
	}
	return out
}

// A few peers that are full, or soon, keep nobody from storing with the others, for
// as long as those have room.
func TestFullPeersHoldNothingUp(t *testing.T) {
	const packSize = 1 << contentClass
	peers := swarmOf(2<<30, 2<<30, 2<<30, 2<<30, 2<<30, 2<<30, 9<<20, 9<<20, 0)
	rnd := rand.New(rand.NewPCG(1, 2))
	could, stored := storable(peers), int64(0)
	for {
		coding, holders, err := coded(contentClass, peers, rnd)
		if errors.Is(err, writeback.ErrTooFew) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(holders) != int(coding.N) {
			t.Fatalf("%d holders for %v", len(holders), coding)
		}
		for _, key := range holders {
			peers[key[1]].Free -= int64(coding.ShardSize(contentClass))
			if peers[key[1]].Free < 0 {
				t.Fatalf("%v was given more than it has room for", key)
			}
		}
		stored += packSize
	}
	if stored < could-packSize || could < 4<<30 {
		t.Errorf("%d bytes were stored, of the %d said to be storable", stored, could)
	}
}

// What can be stored of small blocks can be where a large pack finds no room.
func TestCodedByClass(t *testing.T) {
	peers := swarmOf(slices.Repeat([]int64{1 << 20}, 9)...)
	rnd := rand.New(rand.NewPCG(1, 2))
	if _, _, err := coded(contentClass, peers, rnd); !errors.Is(err, writeback.ErrTooFew) {
		t.Errorf("16 MiB with nine peers that have room for 1 MiB: %v", err)
	}
	if _, holders, err := coded(erasure.MinClass, peers, rnd); err != nil || len(holders) < 2 {
		t.Errorf("64 KiB: %d holders, %v", len(holders), err)
	}
}

// One more peer never makes df tell less room.
func TestStorableGrows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		free := rapid.SliceOfN(rapid.Int64Range(0, 1<<40), 0, 30).Draw(t, "free")
		least := int64(0)
		if len(free) > 0 {
			least = slices.Min(free)
		}
		before := storable(swarmOf(free...))
		if after := storable(swarmOf(append(free, least/4)...)); after < before {
			t.Fatalf("%d bytes, and %d with one more peer that has little room", before, after)
		}
	})
}
