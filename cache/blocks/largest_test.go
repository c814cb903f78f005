package blocks

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// What AddPack enters at once has to fit into one record of the journal: with
// the most references that a pack may have, each of them the first to a block
// that lies in several places, in packs that each have a manifest for many
// holders.
func TestLargestPackFits(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	table := New(st)
	const perPack, places = 16, 3
	stored := make([]Stored, MaxRefs)
	refs := make([]link.Link, MaxRefs)
	for i := range refs {
		refs[i] = link.Link{Codec: link.Raw, Key: [32]byte{1}}
		binary.BigEndian.PutUint64(refs[i].Hash[:], uint64(i)*0x9e3779b97f4a7c15)
		binary.BigEndian.PutUint64(refs[i].Hash[24:], uint64(i))
		stored[i] = Stored{Entry: pack.Entry{Link: refs[i], Tag: block.Tag(refs[i].Hash[16:]), Length: 1 << 20}}
	}
	number := uint16(0)
	add := func(blocks []Stored) error {
		p := Pack{Group: group.ID{byte(number >> 10)}, Number: number, Kind: group.Content, Manifest: make([]byte, 4<<10)}
		number++
		return table.AddPack(p, nil, blocks)
	}
	for range places {
		for i := 0; i < len(stored); i += perPack {
			if err := add(stored[i : i+perPack]); err != nil {
				t.Fatal(err)
			}
		}
	}
	node := Stored{Entry: pack.Entry{Link: link.Link{Codec: link.DagPB, Hash: link.Hash{1, 2, 3}}, Length: 1 << 20}, Refs: refs}
	if err := add([]Stored{node}); err != nil {
		t.Errorf("a pack of blocks with %d references: %v", MaxRefs, err)
	}
}

// What Carry writes again may be more than one record takes: all of it is in the journal
// behind where it began.
func TestCarryOfMuch(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	table := New(st)
	const groups = 1200
	former := make([]group.Former, 400)
	for i := range former {
		former[i].Holder = group.PeerKey{byte(i), byte(i >> 8), 1}
	}
	for i := range groups {
		g := group.Group{ID: group.ID{byte(i), byte(i >> 8)}, Former: former}
		if err := table.PutGroup(g); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			continue
		}
		if gone, err := table.LetGo(g.ID, func(*group.Group) bool { return true }); !gone || err != nil {
			t.Fatalf("%v, %v", gone, err)
		}
	}
	first, err := st.Rotate(0)
	if err == nil {
		err = table.Carry()
	}
	if err == nil {
		err = st.Forget(first)
	}
	if err = errors.Join(err, st.Close(), os.RemoveAll(filepath.Join(dir, "index"))); err != nil {
		t.Fatal(err)
	}
	if st, err = state.Open(dir); err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	all, aerr := New(st).Groups()
	gone, err := New(st).LetGoOf()
	if err = errors.Join(err, aerr); err != nil || len(all) != groups/2 || len(gone) != groups/2 || !st.Rebuilt() {
		t.Errorf("%d groups, %d that were let go of; made anew: %v; %v", len(all), len(gone), st.Rebuilt(), err)
	}
	for _, g := range all {
		if len(g.Former) != len(former) {
			t.Fatalf("a group came back as %+v", g)
		}
	}
}
