package writeback_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"skep/cache/disk"
	"skep/cache/tree"
	"skep/test/memswarm"
)

// counting is a filesystem that counts the bytes which are read from its files.
type counting struct {
	disk.FS
	read atomic.Int64
}

type countingFile struct {
	disk.File
	fs *counting
}

func (c *counting) Open(name string, flags int) (disk.File, error) {
	f, err := c.FS.Open(name, flags)
	return countingFile{f, c}, err
}

func (f countingFile) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.File.ReadAt(p, off)
	f.fs.read.Add(int64(n))
	return n, err
}

// work is what something cost: bytes read from backing files, bytes and ranges
// read from holders, and bytes of shards that these were given.
type work struct {
	read, fetched, stored int64
	ranges                int
}

func (d *device) spent() work {
	return work{d.fs.(*counting).read.Load(), d.swarm.Fetched(), d.swarm.Stored(), d.swarm.Reads()}
}

// cost is what something costs, with the commit after it.
func (d *device) cost(what func()) work {
	d.t.Helper()
	before := d.spent()
	what()
	d.sync()
	w := d.spent()
	return work{w.read - before.read, w.fetched - before.fetched, w.stored - before.stored, w.ranges - before.ranges}
}

func (d *device) edit(path string, p []byte, off int64) {
	d.t.Helper()
	a := must(d.tree.Find(ctx, path))
	f := must(d.tree.Open(ctx, a.Ino, os.O_RDWR))
	defer f.Release()
	if _, err := f.WriteAt(ctx, p, off, false); err != nil {
		d.t.Fatal(err)
	}
}

// What a commit does is in proportion to what changed, whatever the size of the
// file or the directory, and also on a device that lost its index.
func TestWorkFollowsTheChange(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	fs := &counting{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, fs: fs}
	d.open(newDrive)
	t.Cleanup(d.close)
	const large = 1 << 30
	entries := 10_000
	if testing.Short() {
		entries = 2000
	}
	if os.Getenv("SKEP_SOAK") != "" {
		entries = 100_000
	}
	first := d.cost(func() {
		d.put("large", nil)
		for at := int64(0); at < large; at += 64 << 20 { // the rest are holes, which make as many links
			d.edit("large", random(uint64(at>>20), 1<<20), at)
		}
		d.edit("large", []byte{1}, large-1)
		dir, _ := d.parent("dir/x")
		for i := range entries {
			if _, err := d.tree.Symlink(ctx, dir, fmt.Sprintf("entry%06d", i), "x", tree.Owner{}); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Logf("all of it: %+v", first)
	// Shards are padded: what one small pack of metadata takes at all holders.
	const pack = 7 * 64 << 10
	check := func(what string, got, most work) {
		t.Helper()
		t.Logf("%s: %+v", what, got)
		if got.read > most.read || got.fetched > most.fetched || got.stored > most.stored || got.ranges > most.ranges {
			t.Errorf("%s: %+v; want at most %+v", what, got, most)
		}
	}
	edits := uint64(0)
	// A chunk that is not here any more is fetched, in so many ranges; so may be
	// what a directory has.
	changes := func(d *device, when string, fetched, listed work) {
		edits++
		got := d.cost(func() { d.edit("large", []byte(when), 512<<20+100) })
		// A chunk, its 7/4 in shards and padded; the path above it.
		check("one chunk of 1 GiB, "+when, got, work{1 << 20, fetched.fetched, 4*1<<20 + 6*pack, fetched.ranges})
		got = d.cost(func() {
			dir, _ := d.parent("dir/x")
			if err := d.tree.Unlink(ctx, dir, fmt.Sprintf("entry%06d", 777+edits)); err != nil {
				t.Fatal(err)
			}
		})
		check(fmt.Sprintf("one entry of %d, %s", entries, when), got, work{0, listed.fetched, 6 * pack, listed.ranges})
	}
	chunk := work{fetched: 1<<20 + 100, ranges: 1}
	changes(d, "at first", work{}, work{})
	d.forgetJournal()
	d.loseIndex()
	d.open(nil)
	changes(d, "with the index lost", chunk, work{})
	d.counted()
	changes(d, "with the index back", chunk, work{})
	d.audit()
	// A bare device has nothing: it reads the path to the chunk, the directory and
	// the index, once.
	all := work{fetched: first.stored, ranges: 1 << 20}
	bare := recovered(t, swarm)
	changes(bare, "on a bare device", all, all)
	changes(bare, "on a bare device again", chunk, work{})
}

// A sparse file costs what it holds.
func TestHolesCostNothing(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	fs := &counting{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, fs: fs}
	d.open(newDrive)
	t.Cleanup(d.close)
	const size = 50 << 30
	d.put("image", nil)
	for i := range int64(20) {
		d.edit("image", random(uint64(i), 1<<20), i*(size/20))
	}
	d.edit("image", []byte{1}, size-1)
	got := d.cost(func() {})
	t.Logf("first commit: %+v", got)
	if got.read > 21<<20 {
		t.Errorf("%d bytes were read for 20 MiB in a file of 50 GiB", got.read)
	}
	got = d.cost(func() { d.edit("image", []byte("changed"), 3<<30) })
	t.Logf("second commit: %+v", got)
	if got.read > 1<<20 {
		t.Errorf("%d bytes were read again", got.read)
	}
	d.audit()
}
