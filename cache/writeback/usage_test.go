package writeback_test

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
	"skep/chunker/commit"
	"skep/test/memswarm"
)

// sparse writes a file that is a hole but for a MiB at its end.
func (d *device) sparse(path string, size int64) {
	d.t.Helper()
	d.put(path, []byte{1})
	ino := must(d.tree.Find(ctx, path)).Ino
	none := int64(0)
	must(d.tree.SetAttr(ctx, ino, tree.SetAttr{Size: &none}))
	f := must(d.tree.Open(ctx, ino, os.O_RDWR))
	defer f.Release()
	must(f.WriteAt(ctx, random(uint64(size), 1<<20), size-1<<20, false))
}

// usage counts anew what the tree holds: files of every kind, bytes as the tree tells
// them, and bytes by the sizes.
func (d *device) usage(dir tree.Ino) (files, bytes, sizes int64) {
	d.t.Helper()
	var below []tree.Ino
	err := d.tree.ReadDir(ctx, dir, 0, func(e tree.DirEntry) bool {
		files++
		switch e.Attr.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			below = append(below, e.Attr.Ino)
		case unix.S_IFREG:
			bytes += min(e.Attr.Size, 512*e.Attr.Blocks)
			sizes += e.Attr.Size
		}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	for _, ino := range below {
		f, b, s := d.usage(ino)
		files, bytes, sizes = files+f, bytes+b, sizes+s
	}
	return files, bytes, sizes
}

// checkUsage compares what the tree, and where it is the newest the commit, say to what
// there is.
func (d *device) checkUsage(when string, committed bool) {
	d.t.Helper()
	saidFiles, saidBytes := d.tree.Usage() // first: looking may change it
	files, bytes, sizes := d.usage(tree.Root)
	if saidFiles != files || saidBytes != bytes {
		d.t.Errorf("%s: %d files, %d bytes; there are %d, and %d", when, saidFiles, saidBytes, files, bytes)
	}
	if !committed {
		return
	}
	c := must(commit.Parse(must(d.reader.At(ctx, d.swarm.Head().Commit))))
	if c.Files != files || c.Bytes != sizes {
		d.t.Errorf("%s: the commit says %d files, %d bytes; there are %d, and %d", when, c.Files, c.Bytes, files, sizes)
	}
}

// Files with holes are read, deleted, punched and let go of on devices that begin with
// each other's commits, and lose their index: what the drive holds is told as it is.
func TestUsageOfSparseFilesAfterRecoveries(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	for _, name := range []string{"read", "gone", "written", "dir/read", "dir/gone", "dir/later"} {
		d.sparse(name, 100<<20)
	}
	d.put("full", random(1, 8<<20))
	d.put("dir/small", []byte("small"))
	d.sync()
	d.checkUsage("at first", true)
	read := func(d *device, path string) {
		f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, path)).Ino, os.O_RDONLY))
		defer f.Release()
		size := must(d.tree.Find(ctx, path)).Size
		for at := int64(0); at < size; at += 1 << 20 {
			must(f.ReadAt(ctx, make([]byte, 1<<20), at))
		}
	}
	for i, dir := range []string{"", "dir/"} {
		r := &device{t: t, dir: t.TempDir(), swarm: swarm, number: uint32(1 + i)}
		r.recover()
		read(r, dir+"read")
		r.checkUsage("read", false)
		in, name := r.parent(dir + "gone")
		if err := r.tree.Unlink(ctx, in, name); err != nil {
			t.Fatal(err)
		}
		r.checkUsage("deleted unread", false)
		r.sync()
		r.checkUsage("published", true)
		f := must(r.tree.Open(ctx, must(r.tree.Find(ctx, "full")).Ino, os.O_RDWR))
		if err := f.Allocate(ctx, 1<<20, 3<<20, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); err != nil {
			t.Fatal(err)
		}
		f.Release()
		r.sparse("new", 50<<20)
		r.remove("written")
		r.sparse("written", 20<<20)
		read(r, "full")
		r.sync()
		r.checkUsage("punched", true)
		must(r.tree.Evict(ctx, must(r.tree.Find(ctx, "full")).Ino, false))
		must(r.tree.Evict(ctx, must(r.tree.Find(ctx, dir+"read")).Ino, false))
		if err := r.tree.FinishEvictions(ctx); err != nil {
			t.Fatal(err)
		}
		r.checkUsage("let go of", true)
		r.close()
		r.open(nil)
		r.checkUsage("opened again", true)
		r.forgetJournal()
		r.sparse("unsynced", 30<<20)
		r.loseIndex()
		r.open(nil)
		if !r.lost {
			t.Fatal("the test did not lose anything")
		}
		r.checkUsage("without index", false)
		r.remove("unsynced")
		r.remove("new")
		r.sync()
		r.checkUsage("at last", true)
	}
}
