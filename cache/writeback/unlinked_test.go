package writeback_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"testing"

	"skep/cache/disk"
	"skep/cache/tree"
	"skep/chunker/commit"
	"skep/test/memswarm"
)

const unlinkedSize = 6 << 20

// partlyHere makes a committed file of which only the first chunk is here, opens
// it and takes its name away.
func (d *device) partlyHere(name string, want []byte) *tree.File {
	d.t.Helper()
	d.put(name, want)
	d.sync()
	ino := must(d.tree.Find(ctx, name)).Ino
	must(d.tree.Evict(ctx, ino, false))
	if err := d.tree.FinishEvictions(ctx); err != nil {
		d.t.Fatal(err)
	}
	f := must(d.tree.Open(ctx, ino, os.O_RDWR))
	must(f.ReadAt(ctx, make([]byte, 100), 0))
	if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
		d.t.Fatal(err)
	}
	return f
}

// ticks makes commits: what is mostly dead is folded and given up by them.
func (d *device) ticks() {
	for i := range 3 {
		d.put("tick", fmt.Append(nil, i))
		d.sync()
	}
}

func readAll(t testing.TB, f *tree.File, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := f.ReadAt(ctx, b, 0); err != nil {
		t.Fatal(err)
	}
	return b
}

// The holders keep what somebody still reads of a file that was deleted, as long
// as it is open.
func TestUnlinkedFileIsReadToItsEnd(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	d.put("keep", random(1, 100_000))
	d.sync()
	before, _ := swarm.Bytes()
	want := random(2, unlinkedSize)
	f := d.partlyHere("f", want)
	d.ticks()
	d.audit()
	if !bytes.Equal(readAll(t, f, len(want)), want) {
		t.Error("the content is another one")
	}
	f.Release()
	d.tree.Forget(f.Ino())
	d.ticks()
	d.audit()
	if left, _ := swarm.Bytes(); left > before+unlinkedSize/2 {
		t.Errorf("%d bytes are still there, %d were before the file", left, before)
	}
}

// flushing is a filesystem that tells of flushes of its files.
type flushing struct {
	disk.FS
	before func() // a flush; nil: nothing
}

type flushingFile struct {
	disk.File
	fs *flushing
}

func (f *flushing) Open(name string, flags int) (disk.File, error) {
	file, err := f.FS.Open(name, flags)
	return flushingFile{file, f}, err
}

func (f flushingFile) Datasync() error {
	if fn := f.fs.before; fn != nil {
		f.fs.before = nil
		fn()
	}
	return f.File.Datasync()
}

// A file that is unlinked after the commit that took it was published, and before
// the tree knows, is read from what that commit stored.
func TestUnlinkedWhileACommitEnds(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	fs := &flushing{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: swarm, fs: fs}
	d.publish = func(ctx context.Context, h commit.Head) error {
		if h.Number == 2 {
			fs.before = func() { // of the flush before the file counts as taken
				if err := d.tree.Unlink(ctx, tree.Root, "f"); err != nil {
					t.Error(err)
				}
			}
		}
		return swarm.Publish(ctx, h)
	}
	d.open(newDrive)
	t.Cleanup(d.close)
	want := random(3, unlinkedSize)
	d.put("f", want)
	d.sync()
	ino := must(d.tree.Find(ctx, "f")).Ino
	must(d.tree.Evict(ctx, ino, false))
	f := must(d.tree.Open(ctx, ino, os.O_RDWR))
	must(f.WriteAt(ctx, []byte("changed"), 2<<20, false))
	copy(want[2<<20:], "changed")
	d.sync()
	if _, err := d.tree.Find(ctx, "f"); err == nil {
		t.Fatal("nobody unlinked the file: the test shows nothing")
	}
	d.ticks()
	if !bytes.Equal(readAll(t, f, len(want)), want) {
		t.Error("the content is another one")
	}
	f.Release()
}

// After a crash nobody can have it open: it goes.
func TestUnlinkedFileGoesWithACrash(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	d.put("keep", random(1, 100_000))
	d.sync()
	before, _ := swarm.Bytes()
	d.partlyHere("f", random(2, unlinkedSize))
	d.ticks()
	if held, _ := swarm.Bytes(); held < before+unlinkedSize {
		t.Fatalf("%d bytes are there, %d were before the file: the test holds nothing", held, before)
	}
	d.close()
	d.open(nil)
	d.ticks()
	d.audit()
	if left, _ := swarm.Bytes(); left > before+unlinkedSize/2 {
		t.Errorf("%d bytes are still there, %d were before the file", left, before)
	}
}
