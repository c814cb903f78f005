package audit

import (
	"encoding/hex"
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
)

func packs(ns ...uint16) (b group.Bitmap) {
	for _, n := range ns {
		b.Add(n)
	}
	return b
}

func TestPickChoosesWhatIsHeld(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var holdings []Holding
		for i := range rapid.IntRange(0, 5).Draw(t, "groups") {
			holdings = append(holdings, Holding{
				Group: group.ID{byte(i)}, Slot: uint8(i), ShardSize: rapid.IntRange(1, 64).Draw(t, "units") * erasure.MinShard,
				Packs: packs(rapid.SliceOfN(rapid.Uint16Range(0, group.MaxPacks-1), 0, 20).Draw(t, "packs")...),
			})
		}
		seed, peer := secret.Key{1}, group.PeerKey{2}
		counter := rapid.Uint64().Draw(t, "counter")
		c, ok := Pick(seed, peer, counter, holdings)
		if ok != (Leaves(holdings) > 0) {
			t.Fatalf("picked: %v, of %d leaves", ok, Leaves(holdings))
		}
		if !ok {
			return
		}
		h := holdings[c.Slot]
		if c.Group != h.Group || !h.Packs.Has(c.Number) || c.Count < 1 || c.Count > erasure.MaxSamples {
			t.Fatalf("%+v is not held", c)
		}
		if again, _ := Pick(seed, peer, counter, holdings); again != c {
			t.Fatal("the same inputs give another challenge")
		}
		for name, other := range map[string]Challenge{
			"seed":    first(Pick(secret.Key{9}, peer, counter, holdings)),
			"peer":    first(Pick(seed, group.PeerKey{9}, counter, holdings)),
			"counter": first(Pick(seed, peer, counter+1, holdings)),
		} {
			if other.Nonce == c.Nonce {
				t.Fatalf("another %s gives the same nonce", name)
			}
		}
	})
}

func first(c Challenge, _ bool) Challenge { return c }

// A shard is picked in proportion to its leaves.
func TestPickIsFair(t *testing.T) {
	holdings := []Holding{
		{Group: group.ID{1}, Packs: packs(0, 3, 255), ShardSize: 64 << 10},
		{Group: group.ID{2}, Packs: packs(7), ShardSize: 1 << 20},
	}
	const rounds = 20_000
	found := map[group.ID]map[uint16]int{{1}: {}, {2}: {}}
	for i := range uint64(rounds) {
		c, _ := Pick(secret.Key{5}, group.PeerKey{6}, i, holdings)
		found[c.Group][c.Number]++
	}
	total := float64(Leaves(holdings))
	for _, h := range holdings {
		want := rounds * float64(erasure.Leaves(h.ShardSize)) / total
		for n := range uint16(group.MaxPacks) {
			got := float64(found[h.Group][n])
			if !h.Packs.Has(n) {
				if got != 0 {
					t.Errorf("pack %d, which is not held, was picked", n)
				}
				continue
			}
			if math.Abs(got-want) > 5*math.Sqrt(want) {
				t.Errorf("pack %d of group %x: %g times, expected %.0f", n, h.Group[0], got, want)
			}
		}
	}
}

// A day's samples find the loss of one leaf in a hundred with 99 %.
func TestADayFindsOnePercent(t *testing.T) {
	if miss := math.Pow(0.99, PerDay); miss > 0.0101 {
		t.Errorf("%d samples miss it with %.4f", PerDay, miss)
	}
}

func TestGolden(t *testing.T) {
	c, ok := Pick(secret.Key{1, 2, 3}, group.PeerKey{4, 5}, 6, []Holding{
		{Group: group.ID{1}, Slot: 3, Packs: packs(1, 2, 3, 90), ShardSize: 2 << 20},
		{Group: group.ID{2}, Slot: 4, Packs: packs(200, 201), ShardSize: 64 << 10},
	})
	const want = "3de0d39a"
	if !ok || c.Group != (group.ID{1}) || hex.EncodeToString(c.Nonce[:4]) != want {
		t.Errorf("%v, nonce %x, want %s", c, c.Nonce[:4], want)
	}
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		o                               Outcome
		name                            string
		answered, missing, lie, evasive bool
	}{
		{Proved, "proved", true, false, false, false},
		{Late, "late", true, false, false, true},
		{Absent, "absent", true, true, false, false},
		{Corrupt, "corrupt", true, true, true, false},
		{Refused, "refused", true, false, false, true},
		{Silent, "silent", false, false, false, true},
		{Unreachable, "unreachable", false, false, false, false},
		{Outcome(99), "outcome 99", true, false, false, false},
	} {
		if c.o.String() != c.name || c.o.Answered() != c.answered || c.o.Missing() != c.missing || c.o.Lie() != c.lie || c.o.Evasive() != c.evasive {
			t.Errorf("%v: answered %v, missing %v, lie %v, evasive %v", c.o, c.o.Answered(), c.o.Missing(), c.o.Lie(), c.o.Evasive())
		}
	}
}

func TestTime(t *testing.T) {
	allowed := Allowed(100*time.Millisecond, Samples, 2<<20)
	if allowed < 2*time.Second || allowed > 4*time.Second {
		t.Errorf("%v for %d leaves", allowed, Samples)
	}
	if Allowed(time.Second, Samples, 2<<20) <= allowed || Allowed(0, 2*Samples, 2<<20) <= Allowed(0, Samples, 2<<20) {
		t.Error("farther peers, or longer chains, get no more time")
	}
	for _, c := range []struct {
		o    Outcome
		took time.Duration
		want Outcome
	}{
		{Proved, time.Second, Proved}, {Proved, allowed, Proved}, {Proved, allowed + 1, Late},
		{Corrupt, time.Hour, Corrupt}, {Absent, time.Hour, Absent}, {Unreachable, time.Hour, Unreachable},
	} {
		if got := InTime(c.o, c.took, allowed); got != c.want {
			t.Errorf("%v after %v: %v", c.o, c.took, got)
		}
	}
}
