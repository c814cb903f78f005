package blockindex

import (
	"encoding/binary"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/group"
	"skep/chunker/link"
)

func entryOf(h, g, n int) Entry {
	e := Entry{Link: link.Link{Codec: link.Raw}, Place: Place{Number: uint16(n), Offset: 16, Length: uint32(h)}}
	binary.BigEndian.PutUint32(e.Link.Hash[:], uint32(h))
	binary.BigEndian.PutUint32(e.Place.Group[:], uint32(g))
	return e
}

func drawEntries(t *rapid.T) []Entry {
	var out []Entry
	for range rapid.IntRange(0, 60).Draw(t, "n") {
		out = append(out, entryOf(rapid.IntRange(0, 40).Draw(t, "h"), rapid.IntRange(0, 5).Draw(t, "g"), rapid.IntRange(0, 3).Draw(t, "p")))
	}
	slices.SortFunc(out, Compare)
	return slices.CompactFunc(out, func(a, b Entry) bool { return Compare(a, b) == 0 })
}

func TestMergedSegmentsAreTheUnion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawEntries(t), drawEntries(t)
		dead := func(p Place) bool { return p.Number == 3 }
		m := Merge([][]Entry{a, b}, dead)
		if !slices.IsSortedFunc(m, Compare) {
			t.Fatal("not sorted")
		}
		pieces := Encode(m)
		var back []Entry
		for _, p := range pieces {
			d, err := Decode(p)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, d...)
		}
		if !slices.Equal(back, m) {
			t.Fatal("came back different")
		}
		for _, e := range append(slices.Clone(a), b...) {
			if found := slices.Contains(m, e); found == dead(e.Place) {
				t.Fatalf("entry %v found: %v", e.Link, found)
			}
		}
		if len(m) > len(a)+len(b) {
			t.Fatal("more than the union")
		}
	})
}

// However small the commits, segments stay few and merging stays cheap.
func TestMergePolicy(t *testing.T) {
	var counts []int
	work := 0
	const commits, each = 4096, 10
	for range commits {
		counts = append(counts, each)
		at := MergeFrom(counts)
		sum := 0
		for _, c := range counts[at:] {
			sum += c
		}
		if at < len(counts)-1 {
			work += sum
		}
		counts = append(counts[:at], sum)
	}
	if len(counts) > 16 || work > commits*each*16 {
		t.Errorf("%d segments, %d entries merged for %d written", len(counts), work, commits*each)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encodePiece([]Entry{entryOf(1, 2, 3), entryOf(4, 5, 6)}))
	f.Fuzz(func(t *testing.T, b []byte) {
		entries, err := Decode(b)
		if err != nil {
			return
		}
		for _, e := range entries {
			if e.Place.Number >= group.MaxPacks {
				t.Fatal("pack number out of bounds")
			}
		}
	})
}
