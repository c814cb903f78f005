package blocks

import (
	"testing"

	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// What was stored again while references are counted, before or after the index told where
// it is, has its home there when all is counted: a commit has to tell then, as the newest
// one names the other place alone.
func TestStoredAgainWhileCounting(t *testing.T) {
	g := group.Group{ID: group.ID{1}, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{9}}, Packs: 3}
	commit, content := link.Link{Codec: link.CBOR, Hash: link.Hash{1}}, link.Link{Codec: link.Raw, Hash: link.Hash{2}}
	at := func(l link.Link, number uint16) blockindex.Entry {
		return blockindex.Entry{Link: l, Tag: block.Tag{l.Hash[0]}, Place: blockindex.Place{Group: g.ID, Number: number, Length: 10}}
	}
	children := func(l link.Link) ([]link.Link, error) {
		if l == commit {
			return []link.Link{content}, nil
		}
		return nil, nil
	}
	for _, c := range []struct {
		name         string
		first, again bool // stored again before it was learned, and after
		told         bool // by a commit, before all was counted
		moved        bool
	}{
		{name: "not at all"},
		{name: "before", first: true, moved: true},
		{name: "after", again: true, moved: true},
		{name: "told", first: true, told: true},
	} {
		tab := table(t)
		ok := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		store := func(yes bool) {
			if yes {
				ok(tab.AddPack(Pack{Group: g.ID, Number: 2}, nil, []Stored{{Entry: pack.Entry{Link: content, Tag: block.Tag{2}, Length: 10}}}))
			}
		}
		ok(tab.PutGroup(g))
		ok(tab.BeginRecount([]blockindex.Entry{at(commit, 0)}))
		store(c.first)
		ok(tab.Learn([]blockindex.Entry{at(content, 1)}))
		store(c.again)
		if c.told {
			ok(tab.Indexed(func(blockindex.Place) bool { return false }))
		}
		for more := true; more; {
			var err error
			more, err = tab.RecountStep(1, children)
			ok(err)
		}
		if moved, err := tab.Moved(); err != nil || (moved != 0) != c.moved {
			t.Errorf("%s: moved %d, %v", c.name, moved, err)
		}
		for n, want := range []bool{1: c.moved, 2: false} { // of what was left in a pack
			untold, err := tab.Untold(func(p blockindex.Place) bool { return int(p.Number) == n })
			if ok(err); untold != want {
				t.Errorf("%s: of pack %d a commit has to tell: %v", c.name, n, untold)
			}
		}
	}
}
