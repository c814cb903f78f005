package writeback_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"skep/cache/blocks"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/test/memswarm"
	"skep/test/seed"
)

// stranger reads what locators lead to, and knows of nothing else.
func stranger(t *testing.T, swarm *memswarm.Swarm) *readthrough.Reader {
	st := must(state.Open(t.TempDir()))
	t.Cleanup(func() { _ = st.Close() })
	return readthrough.New(blocks.New(st), nil, swarm, names)
}

// index reads the index of the newest commit, as somebody does who has nothing but
// the head. Of every segment the commit names a few blocks, however many it has.
func (d *device) index(r *readthrough.Reader, named int) (entries, lists int) {
	d.t.Helper()
	at := d.swarm.Head().Commit
	c := must(commit.Parse(must(r.At(ctx, at))))
	for i, s := range c.Segments {
		if i > 0 && c.Segments[i-1].Count < 2*s.Count {
			d.t.Errorf("segment %d has %d entries, the one before %d", i, s.Count, c.Segments[i-1].Count)
		}
		if !s.Lists && len(s.Pieces) > named {
			d.t.Errorf("the commit names %d pieces of a segment", len(s.Pieces))
		}
		if s.Lists {
			lists += len(s.Pieces)
		}
		n := 0
		for _, p := range must(r.Pieces(ctx, s, at)) {
			n += len(must(blockindex.Decode(must(r.At(ctx, p.At)))))
		}
		if n != int(s.Count) {
			d.t.Errorf("segment %d has %d entries, it says %d", i, n, s.Count)
		}
		entries += n
	}
	return entries, lists
}

// What a commit names of its index stays short, however large that is: here pieces
// have 8 entries and lists 4 pieces, so that some hundreds of blocks are what tens of
// millions are else. All of it is found by a bare device, of which the account is
// then as that of the first one, after files have gone, packs were folded, the index
// was lost, and in between.
func TestIndexOfALargeDrive(t *testing.T) {
	const piece, named, list = 8, 3, 4
	swarm := memswarm.New(9, 4, 7)
	rnd := rand.New(rand.NewPCG(seed.For(t), 1))
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	reopen := func(prepare func()) {
		if prepare != nil {
			prepare()
		}
		d.open(nil)
		d.engine.SetIndexShape(piece, named, list)
	}
	d.open(newDrive)
	d.engine.SetIndexShape(piece, named, list)
	t.Cleanup(func() { d.close() })
	want := map[string]string{}
	put := d.putting(want)
	eyes, most := stranger(t, swarm), 0
	for round := range 20 {
		for n := range 1 + rnd.IntN(40) {
			dir := fmt.Sprintf("d%d/", round-round*n%3) // most in a new one
			want[dir] = ""
			put(fmt.Sprint(dir, "f", n), random(rnd.Uint64(), 600+rnd.IntN(2000)))
		}
		for p := range want {
			if p[len(p)-1] != '/' && rnd.IntN(6) == 0 {
				dir, name := d.parent(p)
				if err := d.tree.Unlink(ctx, dir, name); err != nil {
					t.Fatal(err)
				}
				delete(want, p)
			}
		}
		d.sync()
		entries, lists := d.index(eyes, named)
		most = max(most, lists)
		if round%5 == 4 {
			reopen(d.loseIndex)
			d.counted()
			d.audit()
		}
		t.Logf("round %d: %d entries, %d lists", round, entries, lists)
	}
	if most < 4 {
		t.Fatal("the test makes no lists")
	}
	check(t, d.committed(), want)
	d.audit()

	bare := recovered(t, swarm)
	bare.engine.SetIndexShape(piece, named, list)
	check(t, bare.listTree(), want)
	bare.counted()
	bare.audit()
	for p := range want {
		if p[len(p)-1] != '/' {
			dir, name := bare.parent(p)
			file := must(bare.tree.Lookup(ctx, dir, name)).Ino
			if err := bare.tree.Unlink(ctx, dir, name); err != nil {
				t.Fatal(err)
			}
			bare.tree.Forget(file)
			delete(want, p)
		}
	}
	for i := range 6 {
		bare.put("tick", []byte{byte(i)})
		bare.sync()
		bare.index(eyes, named)
	}
	want["tick"] = "\x05"
	check(t, bare.committed(), want)
	bare.audit()
}
