package writeback_test

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"skep/cache/blocks"
	"skep/cache/disk"
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

// partlyDevice has a new drive of which source may refuse to read packs.
func partlyDevice(t *testing.T) (d *device, source *partly) {
	t.Helper()
	swarm := memswarm.New(9, 4, 7)
	source = &partly{Swarm: swarm}
	d = &device{t: t, dir: t.TempDir(), swarm: swarm, source: source}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d, source
}

// unreadableDevice has a new drive on a disk that reads of no file what is behind 2 MiB,
// once it fails.
func unreadableDevice(t *testing.T) (d *device, fs *unreadable) {
	t.Helper()
	fs = &unreadable{FS: disk.Local, from: 2 << 20}
	d = &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), fs: fs}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d, fs
}

// tryUnread tries to commit while a file cannot be read, and returns what is said of that.
func (d *device) tryUnread() *writeback.UnreadError {
	d.t.Helper()
	var unread *writeback.UnreadError
	if err := d.engine.Sync(ctx); !errors.As(err, &unread) {
		d.t.Fatalf("sync: %v", err)
	}
	return unread
}

// triesInVain is tryUnread, and returns the bytes that holders were given for it.
func (d *device) triesInVain() int64 {
	d.t.Helper()
	stored := d.swarm.Stored()
	d.tryUnread()
	return d.swarm.Stored() - stored
}

// saysNothing tries ten times to commit what cannot be read, and fails if that says anything.
func (d *device) saysNothing() {
	d.t.Helper()
	heads, stored := d.swarm.Published(), d.swarm.Stored()
	for range 10 {
		d.tryUnread()
	}
	if n, more := d.swarm.Published()-heads, d.swarm.Stored()-stored; n != 0 || more != 0 {
		d.t.Errorf("%d commits were published, and %d bytes stored, that say nothing new", n, more)
	}
}

// While an inner node of a large file cannot be read, what changed before it is stored
// once, and not with each try.
func TestUnreadNodeIsReadFirst(t *testing.T) {
	d, source := partlyDevice(t)
	const mib = 1 << 20
	d.put("f", nil)
	ino := must(d.tree.Find(ctx, "f")).Ino
	d.edit("f", random(1, 2*mib), 200*mib)
	d.sync()
	second := d.swarm.Head().Commit // the node of the second part is in a pack up to this one
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
	d, source := partlyDevice(t)
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

// What could not be read once, and can be now, is not fetched with each try for the sake of
// what still cannot.
func TestChunksThatCanBeReadAgainAreNotFetchedInVain(t *testing.T) {
	d, source := partlyDevice(t)
	const mib = 1 << 20
	const n = 8
	var parts [][]place
	var seen []place
	for i := range int64(n) {
		if i == 0 {
			d.put("f", random(1, mib))
		} else {
			d.edit("f", random(uint64(1+i), mib), i*mib)
		}
		d.sync()
		now := d.contentPacks()
		parts = append(parts, slices.DeleteFunc(slices.Clone(now), func(p place) bool { return slices.Contains(seen, p) }))
		seen = now
	}
	d.evictAll(must(d.tree.Find(ctx, "f")).Ino)
	d.close()
	d.open(nil)
	all := func(ref group.PackRef) bool { return slices.Contains(seen, place{ref.Group, ref.Number}) }
	source.refuse.Store(&all) // else what is written has the rest of its chunk fetched
	for i := range int64(n) {
		d.edit("f", []byte("edit"), i*mib)
	}
	try := func(i int) int64 {
		away := slices.Concat(parts[i:]...) // so that nothing of them is in memory before its turn
		refuse := func(ref group.PackRef) bool { return slices.Contains(away, place{ref.Group, ref.Number}) }
		source.refuse.Store(&refuse)
		before := d.swarm.Fetched()
		d.triesInVain()
		return d.swarm.Fetched() - before
	}
	for i := range n {
		try(i)
	}
	for range 3 {
		if fetched := try(n - 1); fetched > 0 {
			t.Errorf("%d bytes were fetched", fetched)
		}
	}
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
