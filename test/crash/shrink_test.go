package crash

import (
	"reflect"
	"slices"
	"testing"

	"skep/test/model"
)

// TestShrink: of a case only what makes it fail is left, also where one operation can
// go only when another has gone.
func TestShrink(t *testing.T) {
	f := familyAt(allFamilies - 1)
	c := Nested{Passthrough: true, Full: true, Setup: f.setup.ops, A: model.Op{Kind: model.Sync},
		Before: dirtyFar, B: both[0], After: away}
	needed := func(c Nested) bool {
		return slices.Contains(c.Before, dirtyFar[1]) && slices.Contains(c.After, away[1]) && c.Full &&
			(slices.Contains(c.B, both[0][1]) || !slices.Contains(c.After, away[2]))
	}
	tried := 0
	got := c.Shrink(func(c Nested) bool { tried++; return needed(c) })
	want := Nested{Full: true, Setup: c.Setup, A: c.A, Before: dirtyFar[1:2], B: nil, After: away[1:2]}
	got.B = slices.Clip(got.B)
	if len(got.B) == 0 {
		got.B = nil
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v\nwant %v", got, want)
	}
	if most := 40; tried > most {
		t.Errorf("tried %d times", tried)
	}
}

// TestPrinted: a case that is printed can be done again.
func TestPrinted(t *testing.T) {
	for i := 0; i < allFamilies; i += allFamilies/50 + 1 {
		f := familyAt(i)
		p := printed{f.setup.name, f.at(3)}
		got, err := parsePrinted(p.String())
		if err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("%v\ncomes back as\n%v, %v", p, got, err)
		}
	}
	if _, err := parsePrinted(`{"Setup": "no such"}`); err == nil {
		t.Error("what is there before is not known, and nobody says so")
	}
}
