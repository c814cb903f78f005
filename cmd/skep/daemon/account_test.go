package daemon

import (
	"testing"

	"skep/cache/blocks"
	"skep/cache/state"
	"skep/chunker/erasure"
	"skep/chunker/group"
)

// newTable is an account of blocks with one group of two of three.
func newTable(t *testing.T) (*blocks.Table, group.Group) {
	t.Helper()
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	g := group.Group{ID: group.ID{1}, Class: 20, Coding: erasure.NewCoding(2, 3), Slots: make([]group.PeerKey, 3), Packs: 2, Lease: 1}
	table := blocks.New(st)
	if err := table.PutGroup(g); err != nil {
		t.Fatal(err)
	}
	return table, g
}

// What repair found of one pack says nothing of another, which was pushed since
// it read the account.
func TestAckedSaysNothingOfOtherPacks(t *testing.T) {
	table, g := newTable(t)
	a := account{&drive{table: table}}
	for n := range uint16(3) {
		p := blocks.Pack{Group: g.ID, Number: n, Total: 1, Live: 1}
		p.Acked.Add(0)
		p.Acked.Add(1)
		if err := table.AddPack(p, nil); err != nil {
			t.Fatal(err)
		}
	}
	var there, gone group.Bitmap
	there.Add(0)
	gone.Add(1)
	if err := a.Acked(g.ID, 2, there, gone); err != nil {
		t.Fatal(err)
	}
	if err := a.Acked(g.ID, 0, group.Bitmap{}, gone); err != nil {
		t.Fatal(err)
	}
	want := [][]bool{{true, true, true}, {false, true, false}, {true, true, false}}
	for n, slots := range want {
		p, ok, err := table.Pack(g.ID, uint16(n))
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		for slot, acked := range slots {
			if p.Acked.Has(slot) != acked {
				t.Errorf("pack %d, slot %d: acknowledged %v", n, slot, !acked)
			}
		}
	}
}
