package blocks

import (
	"testing"

	"skep/chunker/blockindex"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
)

// A file that nothing referred to while references were counted, and that is held
// afterwards: what is below it is needed from then on, too, and nothing counts as
// counted before that is said.
func TestHoldCountsWhatACountPassedOver(t *testing.T) {
	tab := table(t)
	g := group.Group{ID: group.ID{1}, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{9}}, Packs: 2}
	commit := link.Link{Codec: link.CBOR, Hash: link.Hash{1}}
	file := link.Link{Codec: link.DagPB, Hash: link.Hash{2}}
	chunks := []link.Link{{Codec: link.Raw, Hash: link.Hash{3}}, {Codec: link.Raw, Hash: link.Hash{4}}}
	at := func(l link.Link, number uint16, offset uint32) blockindex.Entry {
		return blockindex.Entry{Link: l, Place: blockindex.Place{Group: g.ID, Number: number, Offset: offset, Length: 10}}
	}
	children := func(l link.Link) ([]link.Link, error) {
		if l == file {
			return chunks, nil
		}
		return nil, nil
	}
	count := func() {
		for more := true; more; {
			var err error
			if more, err = tab.RecountStep(1, children); err != nil {
				t.Fatal(err)
			}
		}
	}
	hold := func(roots ...link.Link) {
		if err := tab.Hold(roots); err != nil {
			t.Fatal(err)
		}
	}
	needed := func(want uint64) {
		t.Helper()
		if p, ok, err := tab.Pack(g.ID, 1); !ok || err != nil || p.Live != want {
			t.Errorf("%d bytes of the pack are needed, not %d: %v", p.Live, want, err)
		}
		if err := tab.Audit([]link.Link{commit}, children, func(f Fault) { t.Error(f) }); err != nil {
			t.Error(err)
		}
	}
	if err := tab.PutGroup(g); err != nil {
		t.Fatal(err)
	}
	if err := tab.BeginRecount([]blockindex.Entry{at(commit, 0, 0)}); err != nil {
		t.Fatal(err)
	}
	if err := tab.Learn([]blockindex.Entry{at(file, 1, 0), at(chunks[0], 1, 10), at(chunks[1], 1, 20)}); err != nil {
		t.Fatal(err)
	}
	count()
	needed(0)

	hold(file)
	if counted, err := tab.Counted(); counted || err != nil {
		t.Errorf("what is below the file is not counted yet: %v", err)
	}
	count()
	needed(30)

	hold()
	for more := true; more; {
		var err error
		if more, err = tab.Reclaim(1, children); err != nil {
			t.Fatal(err)
		}
	}
	needed(0)
}
