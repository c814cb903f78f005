package writeback_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// evictAll has all content of a file with holders alone.
func (d *device) evictAll(ino tree.Ino) {
	d.t.Helper()
	if n, err := d.tree.Evict(ctx, ino, false); err != nil || n == 0 {
		d.t.Fatal(n, err)
	}
	if err := d.tree.FinishEvictions(ctx); err != nil {
		d.t.Fatal(err)
	}
}

// triesInVain tries to commit while a file cannot be read, and returns the bytes that
// holders were given for it.
func (d *device) triesInVain() int64 {
	d.t.Helper()
	stored := d.swarm.Stored()
	var unread *writeback.UnreadError
	if err := d.engine.Sync(ctx); !errors.As(err, &unread) {
		d.t.Fatalf("sync: %v", err)
	}
	return d.swarm.Stored() - stored
}

// While an inner node of a large file cannot be read, what changed before it is stored
// once, and not with each try.
func TestUnreadNodeIsReadFirst(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	source := &partly{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	const mib = 1 << 20
	d.put("f", nil)
	ino := must(d.tree.Find(ctx, "f")).Ino
	d.edit("f", random(1, 2*mib), 200*mib)
	d.sync()
	second := swarm.Head().Commit // the node of the second part is in a pack up to this one
	d.edit("f", random(2, 4*mib), 0)
	d.sync()
	d.evictAll(ino)
	d.close() // what it has in memory is gone
	for n := range second.Number + 1 {
		if err := must(packfiles.Open(filepath.Join(d.dir, "packs"))).Remove(second.Group, n); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(ref group.PackRef) bool { return ref.Group == second.Group && ref.Number <= second.Number }
	source.refuse.Store(&refuse)
	d.open(nil)
	first, last := random(3, 4*mib), random(4, mib)
	d.edit("f", first, 0)
	d.edit("f", last, 200*mib)
	d.triesInVain()
	for range 5 {
		if n := d.triesInVain(); n != 0 {
			t.Fatalf("%d bytes were stored in vain", n)
		}
	}
	source.refuse.Store(nil)
	d.sync()
	got := d.committed()["f"]
	if len(got) != 202*mib || got[:4*mib] != string(first) || got[200*mib:201*mib] != string(last) || got[201*mib:] != string(random(1, 2*mib)[mib:]) {
		t.Error("the commit has something else")
	}
	d.audit()
}

// Where now one chunk of a file cannot be read, and now another, what changed beside them,
// holes too, is stored once for each, and not with each try.
func TestUnreadChunksAreReadFirst(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	source := &partly{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	const mib = 1 << 20
	want := make([]byte, 6*mib)
	copy(want, random(1, 3*mib))
	d.put("f", want[:2*mib])
	d.sync()
	first := d.contentPacks()
	d.edit("f", want[2*mib:3*mib], 2*mib)
	d.sync()
	second := slices.DeleteFunc(d.contentPacks(), func(p place) bool { return slices.Contains(first, p) })
	d.evictAll(must(d.tree.Find(ctx, "f")).Ino)
	d.close() // what it has in memory is gone
	d.open(nil)
	edit := func(p []byte, off int64) {
		copy(want[off:], p)
		d.edit("f", p, off)
	}
	edit(random(2, mib), 0)
	edit([]byte("edit"), mib) // else these chunks are with holders alone
	edit([]byte("edit"), 2*mib)
	edit([]byte("end"), 6*mib-3) // behind a hole
	for i := range 8 {
		away := [][]place{first, second}[i%2]
		refuse := func(ref group.PackRef) bool { return slices.Contains(away, place{ref.Group, ref.Number}) }
		source.refuse.Store(&refuse)
		if n := d.triesInVain(); n != 0 && i > 1 {
			t.Fatalf("try %d: %d bytes were stored in vain", i, n)
		}
	}
	source.refuse.Store(nil)
	d.sync()
	check(t, d.committed(), map[string]string{"f": string(want)})
	d.audit()
}

// contentPacks are those that the account has.
func (d *device) contentPacks() (out []place) {
	d.t.Helper()
	err := d.table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Content {
			out = append(out, place{p.Group, p.Number})
		}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}
