package daemon

import (
	"slices"
	"testing"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/state"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
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
		if err := table.AddPack(p, nil, nil); err != nil {
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

// What the holder of a slot acknowledged is not with the one that the slot goes to, neither of
// packs that are there, nor of one that was on its way meanwhile.
func TestAcknowledgementsOfAMovedSlot(t *testing.T) {
	table, g := newTable(t)
	add := func(n uint16) {
		p := blocks.Pack{Group: g.ID, Number: n}
		for i := range g.Slots {
			p.Acked.Add(i)
		}
		if err := table.AddPack(p, g.Slots, nil); err != nil {
			t.Fatal(err)
		}
	}
	add(0)
	if err := table.MoveSlot(g.ID, 1, group.PeerKey{77}); err != nil {
		t.Fatal(err)
	}
	add(1)
	for n := range uint16(2) {
		p, ok, err := table.Pack(g.ID, n)
		if err != nil || !ok || p.Acked.Has(1) || p.Acked.Count() != len(g.Slots)-1 {
			t.Errorf("pack %d: %d slots, the one that was moved among them: %v (%v)", n, p.Acked.Count(), p.Acked.Has(1), err)
		}
	}
}

// On a device that was recovered, packs of which nothing is needed are idle once
// references are counted, and not before; what no commit refers to yet is not.
func TestIdlePacksOfTheAccount(t *testing.T) {
	table, g := newTable(t)
	packs, err := packfiles.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := account{&drive{table: table, packs: packs}}
	check := func(want ...uint16) {
		t.Helper()
		all, err := a.Groups()
		if err != nil || len(all) != 1 || all[0].Wanted.Count() != 2 {
			t.Fatal(all, err)
		}
		var idle group.Bitmap
		for _, n := range want {
			idle.Add(n)
		}
		if all[0].Idle != idle {
			t.Errorf("%d packs are idle, want %d", all[0].Idle.Count(), want)
		}
	}
	if err := table.BeginRecount(nil); err != nil {
		t.Fatal(err)
	}
	check()
	if more, err := table.RecountStep(1, nil); err != nil || more {
		t.Fatal(more, err)
	}
	check(0, 1)
	fresh := blocks.Stored{Entry: pack.Entry{Link: link.Link{Codec: link.Raw, Hash: link.Hash{1}}, Length: 1}}
	if err := table.AddPack(blocks.Pack{Group: g.ID, Number: 1}, nil, []blocks.Stored{fresh}); err != nil {
		t.Fatal(err)
	}
	check(0)
}

// Who lost a slot is known as a former holder until it was released; of a group that
// was let go of, too, which has nobody else to be asked.
func TestFormerHoldersOfTheAccount(t *testing.T) {
	table, g := newTable(t)
	packs, err := packfiles.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	a := account{&drive{table: table, packs: packs}}
	one, two := group.PeerKey{1}, group.PeerKey{2}
	for _, p := range []group.PeerKey{one, two} {
		if err := table.MoveSlot(g.ID, 2, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := a.Left(g.ID, 1, group.PeerKey{3}); err != nil {
		t.Fatal(err)
	}
	check := func(want []group.PeerKey, slots []group.PeerKey) {
		t.Helper()
		all, err := a.Groups()
		if err != nil || len(all) > 1 {
			t.Fatal(all, err)
		}
		var former, holders []group.PeerKey
		for _, g := range all {
			holders = g.Slots
			for _, f := range g.Former {
				former = append(former, f.Holder)
			}
		}
		if !slices.Equal(former, want) || !slices.Equal(holders, slots) {
			t.Errorf("former holders %v, holders %v", former, holders)
		}
		groups, err := table.Groups()
		if err != nil {
			t.Fatal(err)
		}
		if n, err := formerHolders(table, groups); n != len(want) || err != nil {
			t.Errorf("the status says %d former holders of %d, %v", n, len(want), err)
		}
	}
	check([]group.PeerKey{one, {3}}, []group.PeerKey{{}, {}, two})
	if err := a.Released(g.ID, one); err != nil {
		t.Fatal(err)
	}
	check([]group.PeerKey{{3}}, []group.PeerKey{{}, {}, two})
	if gone, err := table.LetGo(g.ID, func(*group.Group) bool { return true }); err != nil || !gone {
		t.Fatal(gone, err)
	}
	check([]group.PeerKey{{3}}, make([]group.PeerKey, 3))
	if err := a.Released(g.ID, group.PeerKey{3}); err != nil {
		t.Fatal(err)
	}
	check(nil, nil)
}
