package blocks

import (
	"testing"

	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
)

// On a device that joined the drive the home of a block may be the place of two that is
// lost: the other one is its home from then on, and nothing is needed of the lost pack but
// what is nowhere else.
func TestBlocksLeaveALostPack(t *testing.T) {
	tab := table(t)
	g := group.Group{ID: group.ID{1}, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{9}}, Packs: 4}
	commit := link.Link{Codec: link.CBOR, Hash: link.Hash{1}}
	twice, once, nowhere := link.Link{Codec: link.Raw, Hash: link.Hash{2}}, link.Link{Codec: link.Raw, Hash: link.Hash{3}}, link.Link{Codec: link.Raw, Hash: link.Hash{4}}
	unknown := link.Link{Codec: link.Raw, Hash: link.Hash{5}} // is, too, in a pack that is in no account
	at := func(l link.Link, number uint16, offset uint32) blockindex.Entry {
		return blockindex.Entry{Link: l, Place: blockindex.Place{Group: g.ID, Number: number, Offset: offset, Length: 10}}
	}
	children := func(l link.Link) ([]link.Link, error) {
		if l == commit {
			return []link.Link{twice, once, nowhere, unknown}, nil
		}
		return nil, nil
	}
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	ok(tab.PutGroup(g))
	ok(tab.BeginRecount([]blockindex.Entry{at(commit, 0, 0)}))
	ok(tab.Learn([]blockindex.Entry{at(twice, 1, 0), at(once, 1, 10), at(nowhere, 1, 20), at(unknown, 1, 30)}))
	ok(tab.Learn([]blockindex.Entry{at(twice, 2, 0), at(nowhere, 3, 0), at(unknown, 9, 0)}))
	lost := func(p blockindex.Place) bool { return p.Number == 1 || p.Number == 3 }
	leave := func(want bool) {
		t.Helper()
		some, err := tab.Leave(g.ID, 1, lost)
		if ok(err); some != want {
			t.Errorf("some left: %v", some)
		}
	}
	leave(false) // nothing is counted yet
	for more := true; more; {
		var err error
		more, err = tab.RecountStep(1, children)
		ok(err)
	}
	die := func(dead group.Bitmap) {
		ok(tab.UpdateGroup(g.ID, func(row *group.Group) error { row.Dead = dead; return nil }))
	}
	var dead group.Bitmap
	dead.Add(2)
	die(dead)
	leave(false) // holders delete what is dead
	die(group.Bitmap{})
	leave(true)
	leave(false)
	for n, want := range []uint64{10, 30, 10, 0} {
		if p, _, err := tab.Pack(g.ID, uint16(n)); err != nil || p.Live != want {
			t.Errorf("%d bytes of pack %d are needed, not %d: %v", p.Live, n, want, err)
		}
	}
	if b, _, err := tab.Get(twice.Hash); err != nil || len(b.Places) != 2 || b.Places[0].Number != 2 {
		t.Errorf("%+v, %v", b, err)
	}
	if moved, err := tab.Moved(); err != nil || moved == 0 {
		t.Error("no commit has to tell", err)
	}
	ok(tab.Audit([]link.Link{commit}, children, func(f Fault) { t.Error(f) }))

	indexed := func(want int) {
		t.Helper()
		ok(tab.Indexed(func(blockindex.Place) bool { return false }))
		if n, err := tab.CountNew(); err != nil || n != want {
			t.Errorf("%d entries are in no segment, not %d: %v", n, want, err)
		}
	}
	indexed(1) // the commit was complete before
	moved, err := tab.Moved()
	ok(err)
	ok(tab.Turn(link.Link{}, link.Link{}, func(b *state.Batch) error { return tab.Told(b, moved) }))
	indexed(0)
}

// Of the places of a block that one segment names, in the order of places, the last in a
// group is where it was stored again: that is its home.
func TestStoredAgainIsTheHome(t *testing.T) {
	tab := table(t)
	g := group.Group{ID: group.ID{1}, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{9}}, Packs: 4}
	if err := tab.PutGroup(g); err != nil {
		t.Fatal(err)
	}
	l := link.Link{Codec: link.Raw, Hash: link.Hash{2}}
	learn := func(numbers ...uint16) {
		t.Helper()
		var entries []blockindex.Entry
		for _, n := range numbers {
			entries = append(entries, blockindex.Entry{Link: l, Place: blockindex.Place{Group: g.ID, Number: n, Length: 10}})
		}
		if err := tab.Learn(entries); err != nil {
			t.Fatal(err)
		}
		if b, _, err := tab.Get(l.Hash); err != nil || len(b.Places) == 0 || b.Places[0].Number != 2 {
			t.Errorf("%+v, %v", b, err)
		}
	}
	learn(1, 2)
	learn(3) // of an older segment
}
