package plan

import (
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
)

func TestWeak(t *testing.T) {
	for _, c := range []struct {
		k, n         int // as it is coded
		bestK, bestN int // as it would be
		availability float64
		want         bool
	}{
		{1, 1, 1, 1, 0.85, false}, // nothing else is to be had
		{1, 1, 1, 2, 0.85, true},  // the loss of one peer would be all
		{1, 1, 4, 7, 0.85, true},
		{1, 1, 1, 4, 0.85, true},
		{1, 2, 2, 3, 0.85, false},
		{1, 2, 2, 4, 0.85, true},
		{1, 2, 4, 7, 0.85, true},
		{4, 7, 4, 8, 0.85, false}, // a peer more or less founds no group
		{4, 8, 4, 7, 0.85, false},
		{4, 7, 1, 1, 0.85, false}, // most are away: what is better stays
		{4, 7, 9, 18, 0.85, true},
		{9, 18, 19, 36, 0.85, false},
		{9, 18, 32, 55, 0.85, true},
		{19, 36, 32, 60, 0.80, false},
		{19, 36, 32, 64, 0.75, true}, // not twice the losses, but a far smaller chance
		{19, 36, 32, 55, 0.85, false},
		{32, 55, 32, 73, 0.85, false},
		{32, 55, 32, 60, 0.80, false},
		{32, 55, 32, 73, 0.70, true}, // peers are there less often than they were
		{1, 1, 0, 0, 0, false},       // nobody is known
	} {
		best := Choice{}
		if c.bestN > 0 {
			best.Coding = erasure.NewCoding(c.bestK, c.bestN)
			best.Loss = LossOf(best.Coding, c.availability)
		}
		if got := Weak(erasure.NewCoding(c.k, c.n), best, c.availability); got != c.want {
			t.Errorf("%d of %d, where %d of %d could be, at %v: %v", c.k, c.n, c.bestK, c.bestN, c.availability, got)
		}
	}
}

// Whatever swarms follow each other, no pack is moved more often than it can come to
// survive more losses; and what a plan chose is never weak by the same plan.
func TestWeakComesToRest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		class := erasure.Class(rapid.IntRange(int(erasure.MinClass), int(erasure.MaxClass)).Draw(t, "class"))
		in, moves := erasure.NewCoding(1, 1), 0
		for range rapid.IntRange(1, 40).Draw(t, "swarms") {
			peers := swarmOf(make([]int64, rapid.IntRange(0, 90).Draw(t, "peers"))...)
			availability := rapid.Float64Range(0.5, 1).Draw(t, "availability")
			for i := range peers {
				peers[i].Free, peers[i].Availability = 1<<40, availability
			}
			best, _ := Best(class, peers)
			if best.Coding.N > 0 && Weak(best.Coding, best, availability) {
				t.Fatalf("%v is weak where it is chosen", best.Coding)
			}
			if !Weak(in, best, availability) {
				continue
			}
			if Survives(best.Coding) <= Survives(in) {
				t.Fatalf("from %v to %v", in, best.Coding)
			}
			in, moves = best.Coding, moves+1
		}
		if moves > 12 {
			t.Fatalf("moved %d times", moves)
		}
	})
}
