package plan

import (
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/place"
)

// contentClass is that of most packs.
const contentClass = 24

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
	could, stored := Storable(contentClass, peers), int64(0)
	for {
		coding, holders, err := Slots(contentClass, peers, rnd)
		if errors.Is(err, place.ErrTooFew) {
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
	if _, _, err := Slots(contentClass, peers, rnd); !errors.Is(err, place.ErrTooFew) {
		t.Errorf("16 MiB with nine peers that have room for 1 MiB: %v", err)
	}
	if _, holders, err := Slots(erasure.MinClass, peers, rnd); err != nil || len(holders) < 2 {
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
		before := Storable(contentClass, swarmOf(free...))
		if after := Storable(contentClass, swarmOf(append(free, least/4)...)); after < before {
			t.Fatalf("%d bytes, and %d with one more peer that has little room", before, after)
		}
	})
}

// What can be stored is told also where peers claim more than there is.
func TestStorableOfClaims(t *testing.T) {
	told := make(chan int64, 1)
	go func() { told <- Storable(contentClass, swarmOf(1<<40, math.MaxInt64, math.MaxInt64)) }()
	select {
	case got := <-told:
		if got < 1<<40 {
			t.Errorf("%d bytes", got)
		}
	case <-time.After(time.Minute):
		t.Fatal("it is never told")
	}
}

func TestFits(t *testing.T) {
	const g = 1 << 30
	for _, c := range []struct {
		free []int64
		k, n int
		want int64
	}{
		{[]int64{7 * g, 7 * g, 7 * g, 7 * g, 7 * g, 7 * g, 7 * g}, 4, 7, 28 * g},
		{[]int64{math.MaxInt64, g, g}, 1, 3, g},            // one large peer is of no use alone
		{[]int64{4 * g, 2 * g, 2 * g, 2 * g}, 1, 3, 3 * g}, // 3 slots, spread over 4 peers
		{[]int64{g, g}, 1, 3, 0},
		{nil, 0, 0, 0},
		{[]int64{-g, g, g}, 1, 2, g},
	} {
		if got := fits(c.free, c.k, c.n); got != c.want {
			t.Errorf("%d of %d in %v: %d, want %d", c.k, c.n, c.free, got, c.want)
		}
	}
}

// While few are away, all are planned with, or a large swarm would never seem large; while
// so many are that what is stored would not be out, or with too few to lose one, those
// that answer.
func TestAmong(t *testing.T) {
	for _, c := range []struct{ peers, answer, want int }{
		{1, 1, 1}, {1, 0, 1},
		{2, 1, 1}, // else the only shard would be with one peer, and called one of two
		{3, 2, 2}, {4, 3, 3},
		{5, 4, 5}, {8, 6, 8}, {62, 53, 62},
		{8, 5, 5}, {10, 5, 5}, {62, 30, 30},
		{3, 0, 3}, // we are away ourselves
	} {
		all := swarmOf(make([]int64, c.peers)...)
		if got := len(Among(all, all[:c.answer])); got != c.want {
			t.Errorf("of %d peers %d answer, and %d are planned with, not %d", c.peers, c.answer, got, c.want)
		}
	}
}

// What counts as out does not depend on the plan of the moment, or a pack of before
// would be called out by one and not by another.
func TestEnough(t *testing.T) {
	for _, c := range []struct{ k, n, want int }{{4, 7, 5}, {1, 1, 1}, {1, 2, 1}, {2, 3, 2}, {2, 4, 3}, {4, 8, 7}, {32, 55, 39}} {
		if got := Enough(erasure.NewCoding(c.k, c.n)); got != c.want {
			t.Errorf("%d of %d: %d, not %d", c.k, c.n, got, c.want)
		}
	}
	for n := 1; n <= 90; n++ {
		for _, c := range Of(swarmOf(make([]int64, n)...)).Choices {
			if got := Enough(c.Coding); got != c.Enough {
				t.Errorf("%v is out with %d shards by its plan, with %d by itself", c.Coding, c.Enough, got)
			}
		}
	}
}

// Peers on one machine that name no household fail together, and status says so.
func TestOneMachineIsOnePlace(t *testing.T) {
	all := swarmOf(slices.Repeat([]int64{1 << 40}, 8)...)
	for i := range all {
		all[i].Domain = place.Domain{place.AddressGroup: "loopback"}
	}
	p := Of(all)
	if p.Domains != 1 || p.DomainSafe || p.For(erasure.MaxClass).Coding != erasure.NewCoding(4, 7) {
		t.Errorf("%+v", p)
	}
	if words := strings.Join(p.Shortfall(0), " "); !strings.Contains(words, "in one place") {
		t.Errorf("%q", words)
	}
}
