package blockindex

import (
	"encoding/binary"
	"errors"
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
		m := all(t, Merge(dead, each(a), each(b)))
		if !slices.IsSortedFunc(m, Compare) {
			t.Fatal("not sorted")
		}
		var back []Entry
		most := rapid.IntRange(1, 70).Draw(t, "most")
		count, err := Cut(each(m), most, func(first link.Hash, p []byte) error {
			d, err := Decode(p)
			if err != nil || len(d) > most || d[0].Link.Hash != first {
				t.Fatalf("a piece of %d entries: %v", len(d), err)
			}
			back = append(back, d...)
			return nil
		})
		if err != nil || count != uint64(len(m)) {
			t.Fatal(count, err)
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

func each(list []Entry) Entries {
	return func(yield func(Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

func all(t rapid.TB, in Entries) (out []Entry) {
	for e, err := range in {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// A merge holds one entry of each source, and what is cut of it one piece, however
// much there is; so does one that ends early, by an error or because nobody wants
// more.
func TestMergingStreams(t *testing.T) {
	const sources, length, most = 7, 3000, 50
	read, written, open := 0, 0, 0
	errBroken := errors.New("broken")
	source := func(n, fails int) Entries {
		return func(yield func(Entry, error) bool) {
			open++
			defer func() { open-- }()
			for i := range length {
				read++
				if ahead := read - written; ahead > sources+most {
					t.Fatalf("%d entries were read ahead", ahead)
				}
				if i == fails {
					yield(Entry{}, errBroken)
					return
				}
				if !yield(entryOf(i*sources+n, n, 0), nil) {
					return
				}
			}
		}
	}
	for _, fails := range []int{-1, 0, 1000} {
		read, written = 0, 0
		var in []Entries
		for n := range sources {
			in = append(in, source(n, fails))
		}
		count, err := Cut(Merge(func(Place) bool { return false }, in...), most, func(_ link.Hash, p []byte) error {
			entries, err := Decode(p)
			written += len(entries)
			return err
		})
		if open != 0 {
			t.Errorf("%d sources are left open", open)
		}
		if fails < 0 && (err != nil || count != sources*length || written != sources*length) {
			t.Errorf("%d entries, %d written: %v", count, written, err)
		}
		if fails >= 0 && !errors.Is(err, errBroken) {
			t.Errorf("an error of a source was lost: %v", err)
		}
	}
	for range Merge(func(Place) bool { return false }, source(0, -1), source(1, -1)) {
		break
	}
	if open != 0 {
		t.Errorf("%d sources are left open by who wants no more", open)
	}
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
	f.Add(Encode([]Entry{entryOf(1, 2, 3), entryOf(4, 5, 6)}))
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
