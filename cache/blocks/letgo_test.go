package blocks

import (
	"errors"
	"testing"

	"skep/chunker/blockindex"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
)

// A group leaves the account when no pack of it is there, and what is known of it
// then is that it is dead: an old piece of the index brings nothing of it back.
func TestLetGo(t *testing.T) {
	tab := table(t)
	g := group.Group{ID: group.ID{1}, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 3),
		Slots: []group.PeerKey{{7}, {}, {9}}}
	must := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	letGo := func(say bool) bool {
		t.Helper()
		gone, err := tab.LetGo(g.ID, func(row *group.Group) bool { row.Lease = 5; return say })
		must(err)
		return gone
	}
	_, _, err := tab.NextPack(g.ID, func(*group.Group) {})
	if err == nil {
		t.Error("a number was given out of a group that is not there")
	}
	must(tab.PutGroup(g))
	_, number, err := tab.NextPack(g.ID, func(*group.Group) {})
	must(err)
	if letGo(true) {
		t.Error("a group was let go of while a pack is on its way")
	}
	must(tab.AddPack(Pack{Group: g.ID, Number: number}, nil, nil), tab.Unwatch([]Watched{{Group: g, Number: number}}))
	if letGo(true) {
		t.Error("a group was let go of with a pack in it")
	}
	must(tab.Bury(g.ID, number))
	if letGo(false) || !letGo(true) || letGo(true) {
		t.Error("a group is let go of when all agree, and once")
	}
	if _, there, err := tab.Group(g.ID); there || err != nil {
		t.Errorf("the group is still in the account: %v", err)
	}

	l := link.Link{Codec: link.Raw, Hash: link.Hash{3}}
	must(tab.Learn([]blockindex.Entry{{Link: l, Place: blockindex.Place{Group: g.ID, Number: number, Offset: 16, Length: 10}}}))
	if b, _, err := tab.Get(l.Hash); len(b.Places) > 0 || err != nil {
		t.Errorf("a block is said to lie in a group that was let go of: %v, %v", b.Places, err)
	}

	all, err := tab.LetGoOf()
	must(err)
	if len(all) != 1 || all[0].Group.Lease != 5 || all[0].Told != (group.SlotSet{}) {
		t.Fatalf("%+v", all)
	}
	slots := func(of ...int) (s group.SlotSet) {
		for _, i := range of {
			s.Add(i)
		}
		return s
	}
	must(tab.Heard(g.ID, slots(2)))
	all, err = tab.LetGoOf()
	must(err)
	if len(all) != 1 || all[0].Untold().Slots[0] != g.Slots[0] || !all[0].Untold().Slots[2].IsZero() {
		t.Fatalf("%+v", all)
	}
	must(tab.Heard(g.ID, slots(0)), tab.Heard(g.ID, slots(0)))
	if all, err = tab.LetGoOf(); err != nil || len(all) != 0 {
		t.Errorf("all have heard, and it is not forgotten: %+v, %v", all, err)
	}
}
