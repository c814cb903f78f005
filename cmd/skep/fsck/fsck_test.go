package fsck

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"skep/cache/blocks"
	"skep/cache/readthrough"
	"skep/chunker/block"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
	"skep/net/client"
)

// Of a damaged pack those blocks are named that are damaged, or none if nobody can tell.
func TestCheckPack(t *testing.T) {
	read, sealer := secret.Key{1}, block.NewSealer(secret.Key{2})
	b := pack.NewBuilder(erasure.MinClass, nil)
	var hashes []link.Hash
	for i := range byte(3) {
		s, err := sealer.Seal(link.Raw, bytes.Repeat([]byte{i}, 100), nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Add(s); err != nil {
			t.Fatal(err)
		}
		hashes = append(hashes, s.Link.Hash)
	}
	entries := b.Entries()
	_, whole, err := b.Seal(read)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		at   int // where it is damaged; -1: nowhere
		want []link.Hash
		err  error
	}{
		"nothing":   {-1, nil, nil},
		"a block":   {int(entries[1].Offset) + 3, hashes[1:2], pack.ErrCorrupt},
		"the index": {len(whole) - 40, nil, pack.ErrCorrupt},
	} {
		p := bytes.Clone(whole)
		if c.at >= 0 {
			p[c.at] ^= 1
		}
		if bad, err := checkPack(read, p); !slices.Equal(bad, c.want) || !errors.Is(err, c.err) {
			t.Errorf("%s: %v, %v", name, bad, err)
		}
	}
	if _, err := checkPack(read, whole[:len(whole)-1]); !errors.Is(err, pack.ErrCorrupt) {
		t.Errorf("cut short: %v", err)
	}
}

// A damaged block is that of the nearest path above it; what no path leads to is told of
// only if nothing else is.
func TestConcerned(t *testing.T) {
	h := func(n byte) link.Hash { return link.Hash{n} }
	c := checker{roots: map[link.Hash]string{h(1): "/", h(2): "/file"}, parents: map[link.Hash]link.Hash{h(3): h(2), h(4): h(3), h(5): h(6), h(7): h(7)}}
	for _, x := range []struct {
		bad  []link.Hash
		want []string
	}{
		{[]link.Hash{h(4)}, []string{"/file"}},
		{[]link.Hash{h(4), h(3), h(1)}, []string{"/", "/file"}},
		{[]link.Hash{h(5)}, []string{elsewhere}},
		{[]link.Hash{h(7)}, []string{elsewhere}}, // a circle ends
		{[]link.Hash{h(5), h(2)}, []string{"/file"}},
	} {
		if got := c.concerned(x.bad); !slices.Equal(got, x.want) {
			t.Errorf("%v: %q, want %q", x.bad, got, x.want)
		}
	}
}

// Packs are counted by the shards that were shown, and holders named that could not show
// what they say to have; not those that did not answer.
func TestJudge(t *testing.T) {
	g := group.Group{ID: group.ID{1}, Coding: erasure.NewCoding(2, 4)}
	name := func(n uint16) readthrough.PackName { return readthrough.PackName{Group: g.ID, Number: n} }
	s := &survey{packs: map[readthrough.PackName]blocks.Pack{}, of: map[group.ID]group.Group{g.ID: g},
		live: map[readthrough.PackName]int{}, unreal: map[group.PeerKey]claimed{}}
	for n, shown := range []int{4, 3, 2, 1, 0} {
		s.packs[name(uint16(n))] = blocks.Pack{Group: g.ID, Number: uint16(n)}
		for range shown {
			s.shown(name(uint16(n)), group.PeerKey{9}, nil)
		}
	}
	s.shown(name(3), group.PeerKey{7}, client.ErrLied)
	s.shown(name(4), group.PeerKey{7}, client.ErrAbsent)
	s.shown(name(4), group.PeerKey{8}, client.ErrUnreachable)
	c := checker{r: &Report{}}
	c.judge(s)
	if r := c.r; r.Packs != 5 || r.PacksBelowTarget != 4 || r.PacksLost != 2 || r.ShardsUnreal != 2 {
		t.Errorf("%+v", r)
	}
	if p := c.r.Problems; len(p) != 2 || !strings.Contains(p[0].Problem, "2 of 5 packs cannot be rebuilt") || !strings.Contains(p[1].Problem, "does not have 2 of the shards") {
		t.Errorf("%+v", p)
	}
	for _, n := range []uint16{3, 4} {
		delete(s.packs, name(n))
	}
	clear(s.unreal)
	c = checker{r: &Report{}}
	c.judge(s)
	if r := c.r; r.PacksBelowTarget != 2 || len(r.Problems) > 0 {
		t.Errorf("of packs that can all be read: %+v", r)
	}
}
