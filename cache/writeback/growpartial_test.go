package writeback_test

import (
	"os"
	"sync/atomic"
	"testing"

	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/test/memswarm"
)

// reads is a filesystem that counts what is read of its files.
type reads struct {
	disk.FS
	n atomic.Int64
}

type readsFile struct {
	disk.File
	fs *reads
}

func (r *reads) Open(name string, flags int) (disk.File, error) {
	f, err := r.FS.Open(name, flags)
	return readsFile{f, r}, err
}

func (f readsFile) ReadAt(p []byte, off int64) (int, error) {
	f.fs.n.Add(1)
	return f.File.ReadAt(p, off)
}

// A file of which a part is with holders alone, and that is made much larger, costs a
// commit no more than what it holds.
func TestHoleInAFilePartlyHere(t *testing.T) {
	fs := &reads{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), fs: fs}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	want := random(3, 6<<20+1000)
	d.put("f", want)
	d.sync()
	ino := must(d.tree.Find(ctx, "f")).Ino
	must(d.tree.Evict(ctx, ino, false))
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	const chunks = 64
	size := int64(chunks * dag.ChunkSize)
	f := must(d.tree.Open(ctx, ino, os.O_RDWR))
	must(f.WriteAt(ctx, []byte("changed"), 2<<20, false))
	copy(want[2<<20:], "changed")
	must(f.WriteAt(ctx, []byte("end"), size-3, false))
	f.Release()
	fs.n.Store(0)
	d.sync()
	if n := fs.n.Load(); n > chunks/4 {
		t.Errorf("the file was read %d times for a commit", n)
	}
	got := d.committed()["f"]
	if int64(len(got)) != size || got[:len(want)] != string(want) || got[size-3:] != "end" || !isZeros(got[len(want):size-3]) {
		t.Error("the commit has something else")
	}
}

func isZeros(s string) bool {
	for i := range len(s) {
		if s[i] != 0 {
			return false
		}
	}
	return true
}
