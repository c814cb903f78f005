package evict_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
)

// smallFiles makes n files whose content is kept in rows.
func (d *device) smallFiles(n int) map[string][]byte {
	d.t.Helper()
	r := rand.New(rand.NewPCG(1, 2))
	want := map[string][]byte{}
	for i := range n {
		b := make([]byte, 12000+r.IntN(4000))
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		name := fmt.Sprint("small", i)
		f, _, err := d.tree.Create(ctx, tree.Root, name, 0o644, os.O_WRONLY, tree.Owner{})
		if err == nil {
			_, err = f.WriteAt(ctx, b, 0, false)
			f.Release()
		}
		if err != nil {
			d.t.Fatal(err)
		}
		want[name] = b
	}
	return want
}

// The content of many small files is let go of like that of large ones, the room
// that it took comes free, and what is read comes back.
func TestSmallFilesGo(t *testing.T) { synctest.Test(t, testSmallFilesGo) }

func testSmallFilesGo(t *testing.T) {
	const limit = 16 << 20
	d := newDevice(t, limit)
	n := 3600 // 49 MiB: enough goes for the index to be compacted
	if testing.Short() {
		n = 1600
	}
	want := d.smallFiles(n)
	if n := d.tree.Small(); n != 0 {
		t.Errorf("%d bytes count as committed before a commit", n)
	}
	if err := d.engine.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := d.tree.Small(); n > limit || n < limit/2 {
		t.Errorf("%d bytes are here, the limit is %d", n, limit)
	}
	if size := d.st.IndexSize(); size > 2*limit && !testing.Short() {
		t.Errorf("the index takes %d bytes", size)
	}
	// Over a restart nothing changes, and all of it can be read.
	before := d.tree.Small()
	d.close()
	d.open()
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := d.tree.Small(); n != before {
		t.Errorf("%d bytes are here after a restart, %d before", n, before)
	}
	left := 300
	for name, b := range want {
		if left--; left < 0 {
			break
		}
		a := must(d.tree.Lookup(ctx, tree.Root, name))
		f := must(d.tree.Open(ctx, a.Ino, os.O_RDONLY))
		got := make([]byte, len(b)+1)
		n, err := f.ReadAt(ctx, got, 0)
		if err != nil || !bytes.Equal(got[:n], b) {
			t.Fatalf("%s: %d bytes of %d: %v", name, n, len(b), err)
		}
		f.Release()
	}
	time.Sleep(time.Minute)
	synctest.Wait()
	if n := d.tree.Small(); n > limit {
		t.Errorf("%d bytes are here after many were read, the limit is %d", n, limit)
	}
}

// A small file that is open, pinned, or changed since the commit stays, and one
// that is unlinked while it is open and not here is read to its end.
func TestSmallFilesInUse(t *testing.T) { synctest.Test(t, testSmallFilesInUse) }

func testSmallFilesInUse(t *testing.T) {
	d := newDevice(t, 1<<30)
	want := d.smallFiles(4)
	if err := d.engine.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	ino := func(i int) tree.Ino { return must(d.tree.Lookup(ctx, tree.Root, fmt.Sprint("small", i))).Ino }
	open := func(i, flags int) *tree.File { return must(d.tree.Open(ctx, ino(i), flags)) }
	evicts := func(i int) bool { return must(d.tree.EvictSmall(ctx, ino(i))) > 0 }

	f := open(0, os.O_RDONLY)
	if evicts(0) {
		t.Error("an open file went")
	}
	f.Release()
	f = open(1, os.O_WRONLY)
	must(f.WriteAt(ctx, []byte("new"), 0, false))
	f.Release()
	if evicts(1) {
		t.Error("a file that no commit has as it is went")
	}
	if !evicts(2) || evicts(2) {
		t.Error("a file went twice, or not at all")
	}
	f = open(2, os.O_RDONLY)
	must(0, d.tree.Unlink(ctx, tree.Root, "small2"))
	if err := d.engine.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(want["small2"]))
	if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want["small2"]) {
		t.Errorf("an unlinked file: %v, the same: %v", err, bytes.Equal(got, want["small2"]))
	}
	f.Release()
	d.tree.Forget(f.Ino())

	// Writing into one that is not here changes what is written alone.
	if !evicts(3) {
		t.Fatal("the file did not go")
	}
	f = open(3, os.O_RDWR)
	must(f.WriteAt(ctx, []byte("new"), 100, false))
	copy(want["small3"][100:], "new")
	got = make([]byte, len(want["small3"]))
	if _, err := f.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want["small3"]) {
		t.Errorf("a file that was written: %v, the same: %v", err, bytes.Equal(got, want["small3"]))
	}
	f.Release()
}
