package plan

import (
	"testing"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// A pack counts as what is left of it, if one missing shard is one too many.
func TestFrailty(t *testing.T) {
	weak := erasure.NewCoding(1, 1)
	asked := map[erasure.Coding]int{}
	judge := func(_ erasure.Class, _ group.Kind, c erasure.Coding) (bool, float64) {
		asked[c]++
		return c == weak, 1 / float64(c.N)
	}
	var f Frailty
	for _, c := range []struct {
		k, n, shards int
		weak, frail  bool
	}{
		{1, 1, 1, true, true},
		{1, 2, 2, false, false},
		{1, 2, 1, true, true},
		{2, 3, 3, false, false},
		{2, 3, 2, false, true},
		{2, 4, 2, false, false}, // repair brings those that are missing
		{4, 7, 7, false, false},
		{4, 7, 4, false, false},
	} {
		if weak, frail := f.Add(group.Group{Class: 20, Coding: erasure.NewCoding(c.k, c.n)}, c.shards, judge); weak != c.weak || frail != c.frail {
			t.Errorf("%d shards of %d of %d: weak %v, frail %v", c.shards, c.k, c.n, weak, frail)
		}
	}
	if f.Weak != 2 || f.Frail != 3 || f.Loss != 1 {
		t.Errorf("%+v", f)
	}
	for c, n := range asked {
		if n != 1 {
			t.Errorf("%v was asked for %d times", c, n)
		}
	}
}
