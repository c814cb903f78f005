package crash

import (
	"bytes"
	"math/rand/v2"
	"os"
	"testing"

	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/test/memdisk"
)

// once has something done one time: before the journal is flushed, or after a
// backing file is. It returns how often that was.
func once(d *memdisk.Disk, after bool, dir string, do func()) *int {
	n := new(int)
	d.Watch(func(e memdisk.Event, happened bool) {
		if e.Kind == memdisk.Flush && happened == after && e.Below(dir) && *n == 0 {
			*n++
			do()
		}
	})
	return n
}

func treeOn(t *testing.T, d *memdisk.Disk, h *holders) *drive {
	t.Helper()
	drv, err := open(d, h, false)
	if err != nil {
		t.Fatal(err)
	}
	return drv
}

// What an fsync has answered for is there after power loss, though somebody else
// wrote to the file while it was flushed, and it outgrew the journal.
func TestGrowsWhileItIsFlushed(t *testing.T) {
	d := memdisk.New()
	tr := treeOn(t, d, newHolders()).Tree
	f, _, err := tr.Create(ctx, tree.Root, "log", 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	first, more := bytes.Repeat([]byte("A"), 5000), bytes.Repeat([]byte("B"), 20000)
	if _, err := f.WriteAt(ctx, first, 0, false); err != nil {
		t.Fatal(err)
	}
	flushed := once(d, false, "/state/journal", func() {
		if _, err := f.WriteAt(ctx, more, int64(len(first)), false); err != nil {
			t.Error(err)
		}
	})
	if err := f.Sync(ctx, false); err != nil {
		t.Fatal(err)
	}
	if *flushed == 0 {
		t.Fatal("the journal was not flushed")
	}
	for _, loss := range d.Losses(d.Len(), rand.New(rand.NewPCG(1, 2)), 2) {
		after := d.PowerLoss(d.Len(), loss)
		drv := treeOn(t, after, newHolders())
		if got := contentOf(t, drv.Tree, "log"); !bytes.HasPrefix(got, first) {
			t.Errorf("losing %s: %d bytes are there, not those that were flushed", loss.Name, len(got))
		}
		drv.close()
	}
}

func contentOf(t *testing.T, tr *tree.Tree, name string) []byte {
	t.Helper()
	a, err := tr.Lookup(ctx, tree.Root, name)
	if err != nil {
		t.Error(err)
		return nil
	}
	f, err := tr.Open(ctx, a.Ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	p := make([]byte, a.Size)
	n, err := f.ReadAt(ctx, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	return p[:n]
}

// What is fetched while a commit settles is not called resident before it is on the
// disk, though a write that was flushed is.
func TestFetchedWhileACommitSettles(t *testing.T) {
	d, h := memdisk.New(), newHolders()
	tr := treeOn(t, d, h).Tree
	f, a, err := tr.Create(ctx, tree.Root, "db", 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("A"), 3*dag.ChunkSize)
	if _, err := f.WriteAt(ctx, want, 0, false); err != nil {
		t.Fatal(err)
	}
	f.Release()
	commit := func() {
		t.Helper()
		if err := h.commit(tr, false, tree.Whole); err != nil {
			t.Fatal(err)
		}
	}
	commit()
	if n, err := tr.Evict(ctx, a.Ino, false); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := tr.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	if f, err = tr.Open(ctx, a.Ino, os.O_RDWR); err != nil {
		t.Fatal(err)
	}
	copy(want[10:], "changed")
	if _, err := f.WriteAt(ctx, want[10:17], 10, false); err != nil {
		t.Fatal(err)
	}
	flushed := once(d, true, "/files", func() { // beside the commit
		if _, err := f.ReadAt(ctx, make([]byte, 100), 2*dag.ChunkSize); err != nil {
			t.Error(err)
		}
	})
	commit()
	if *flushed == 0 {
		t.Fatal("the commit flushed nothing")
	}
	for _, loss := range d.Losses(d.Len(), rand.New(rand.NewPCG(1, 2)), 2) {
		after := d.PowerLoss(d.Len(), loss)
		drv := treeOn(t, after, h)
		if !bytes.Equal(contentOf(t, drv.Tree, "db"), want) {
			t.Errorf("losing %s: the content is another", loss.Name)
		}
		drv.close()
	}
}
