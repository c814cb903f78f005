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

// work is what a commit cost: bytes read from backing files, ranges read from
// holders, and bytes of shards that these were given.
type work struct {
	read, stored int64
	ranges       int
}

// cost commits, and tells what that took.
func (d *device) cost(fs *counting) work {
	d.t.Helper()
	read, ranges, stored := fs.read.Load(), d.swarm.Reads(), d.swarm.Stored()
	d.sync()
	return work{read: fs.read.Load() - read, ranges: d.swarm.Reads() - ranges, stored: d.swarm.Stored() - stored}
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
	if os.Getenv("SKEP_SOAK") != "" {
		entries = 100_000
	}
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
	first := d.cost(fs)
	t.Logf("all of it: %+v", first)
	// Shards are padded: what one small pack of metadata takes at all holders.
	const pack = 7 * 64 << 10
	check := func(what string, got, most work) {
		t.Helper()
		t.Logf("%s: %+v", what, got)
		if got.read > most.read || got.stored > most.stored || got.ranges > most.ranges {
			t.Errorf("%s: %+v; want at most %+v", what, got, most)
		}
	}
	// A chunk that is not here any more is fetched in two ranges.
	changes := func(when string, seed uint64, ranges int) {
		d.edit("large", []byte(when), 512<<20+100)
		// A chunk, its 7/4 in shards and padded; the path above it.
		check("one chunk of 1 GiB, "+when, d.cost(fs), work{1 << 20, 4*1<<20 + 6*pack, ranges})
		name := fmt.Sprintf("entry%06d", 777+seed)
		if err := d.tree.Unlink(ctx, dir, name); err != nil {
			t.Fatal(err)
		}
		check(fmt.Sprintf("one entry of %d, %s", entries, when), d.cost(fs), work{0, 6 * pack, 0})
	}
	changes("at first", 1, 0)
	d.forgetJournal()
	d.loseIndex()
	d.open(nil)
	dir, _ = d.parent("dir/x")
	changes("with the index lost", 2, 2)
	d.counted()
	changes("with the index back", 3, 2)
	d.audit()
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
	got := d.cost(fs)
	t.Logf("first commit: %+v", got)
	if got.read > 21<<20 {
		t.Errorf("%d bytes were read for 20 MiB in a file of 50 GiB", got.read)
	}
	d.edit("image", []byte("changed"), 3<<30)
	got = d.cost(fs)
	t.Logf("second commit: %+v", got)
	if got.read > 1<<20 {
		t.Errorf("%d bytes were read again", got.read)
	}
	d.audit()
}
