package readthrough_test

import (
	"context"
	"errors"
	"maps"
	"slices"
	"testing"

	"skep/cache/readerr"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// What a path lies in is its content, the folders and the commit on the way to it, and, of
// a folder, all that is in it, or every pack if that need not be looked up.
func TestPacksOfAPath(t *testing.T) {
	d := newDevice(t, newSwarm())
	one, _ := d.file(11, 2)
	linked, _ := d.file(12, 2)
	d.file(13, 1) // no path leads to it
	put := func(n uint16, changes ...dag.Change) link.Link {
		p := &putter{b: pack.NewBuilder(22, nil), plains: map[link.Hash][]byte{}}
		l, err := dag.EditDir(t.Context(), p, nameKey, link.Link{}, changes)
		if err != nil {
			t.Fatal(err)
		}
		entries := p.b.Entries()
		d.swarm.seal(t, n, p.b)
		d.account(n, entries)
		return l
	}
	regular := func(id uint64, f dag.File) *dag.Inode {
		return &dag.Inode{ID: id, Mode: dag.ModeRegular | 0o644, Nlink: 1, Size: f.Size, Content: f.Root}
	}
	folder := func(id uint64, content link.Link) *dag.Inode {
		return &dag.Inode{ID: id, Mode: dag.ModeDirectory | 0o755, Nlink: 2, Content: content}
	}
	small := &dag.Inode{ID: 5, Mode: dag.ModeRegular | 0o644, Nlink: 1, Size: 1, Inline: []byte{1}}
	links := put(3, dag.Change{Name: dag.InodeName(7), Record: regular(7, linked)})
	sub := put(4, dag.Change{Name: "one", Record: regular(6, one)}, dag.Change{Name: "small", Record: small},
		dag.Change{Name: "linked", Record: &dag.Inode{ID: 7, Mode: dag.ModeRegular, Linked: true}})
	root := put(5, dag.Change{Name: "sub", Record: folder(8, sub)})
	if _, err := d.reader.Packs().Path(t.Context(), "sub", true); err != nil {
		t.Errorf("without a commit: %v", err)
	}
	record, err := folder(1, root).Encode()
	if err != nil {
		t.Fatal(err)
	}
	d.reader.SetCommit(&commit.Commit{Root: record, Links: links}, commit.Locator{})
	for _, c := range []struct {
		path  string
		deep  bool
		there bool
		want  []uint16
	}{
		{"", false, true, []uint16{3, 4, 5, 11, 12, 13}},
		{"", true, true, []uint16{3, 4, 5, 11, 12}},
		{"sub", false, true, []uint16{3, 4, 5, 11, 12, 13}},
		{"sub/one", false, true, []uint16{3, 4, 5, 11}},
		{"sub/small", true, true, []uint16{3, 4, 5}},
		{"sub/linked", true, true, []uint16{3, 4, 5, 12}},
		{"sub/none", true, false, []uint16{3, 4, 5}},
	} {
		p := d.reader.Packs()
		there, err := p.Path(t.Context(), c.path, c.deep)
		var got []uint16
		for name := range p.All() {
			got = append(got, name.Number)
		}
		slices.Sort(got)
		if err != nil || there != c.there || !slices.Equal(got, c.want) || p.Every() != slices.Contains(got, 13) {
			t.Errorf("%q, deep %v: %v, %v, packs %v, want %v", c.path, c.deep, there, err, got, c.want)
		}
	}
}

// A file without blocks lies in no pack, and of one of which nobody knows where it lies
// that is said.
func TestPacksOfAFile(t *testing.T) {
	d := newDevice(t, newSwarm())
	p := d.reader.Packs()
	if err := p.File(t.Context(), dag.File{}); err != nil || len(p.All()) != 0 {
		t.Errorf("%v, %v", err, slices.Collect(maps.Keys(p.All())))
	}
	lost := dag.File{Root: link.Link{Hash: link.Hash{9}, Codec: link.Raw}, Size: 10}
	if err := p.File(t.Context(), lost); !errors.Is(err, readerr.ErrAbsent) {
		t.Error(err)
	}
}

// A hole of many chunks is one block, and is looked up once.
func TestPacksOfAHole(t *testing.T) {
	const chunks = 5000
	d := newDevice(t, newSwarm())
	p := &putter{b: pack.NewBuilder(22, nil), plains: map[link.Hash][]byte{}}
	hole, err := p.Put(t.Context(), link.Raw, make([]byte, dag.ChunkSize), nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := dag.WriteFile(t.Context(), p, dag.File{}, chunks*dag.ChunkSize, []dag.Run{{From: 0, To: chunks}},
		func(context.Context, int64) (link.Link, error) { return hole, nil })
	if err != nil {
		t.Fatal(err)
	}
	d.swarm.seal(t, 1, p.b)
	d.account(1, p.b.Entries())
	all := d.reader.Packs()
	each := testing.AllocsPerRun(1, func() { err = all.File(t.Context(), f) })
	if err != nil || len(all.All()) != 1 {
		t.Errorf("%v, packs %v", err, all.All())
	}
	if each > chunks {
		t.Errorf("%v allocations for %d chunks that are all alike", each, chunks)
	}
}
