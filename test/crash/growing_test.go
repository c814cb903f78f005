package crash

import (
	"bytes"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/test/memdisk"
)

// meanwhile is a disk on which something happens once while the journal is
// flushed, or after a backing file was.
type meanwhile struct {
	disk.FS
	during, after func()
}

type meanwhileFile struct {
	disk.File
	on   *meanwhile
	name string
}

func (m *meanwhile) Open(name string, flags int) (disk.File, error) {
	f, err := m.FS.Open(name, flags)
	return meanwhileFile{f, m, name}, err
}

func (f meanwhileFile) Datasync() error {
	if do := f.on.during; do != nil && strings.HasSuffix(f.name, ".journal") {
		f.on.during = nil
		do()
	}
	err := f.File.Datasync()
	if do := f.on.after; do != nil && strings.HasPrefix(f.name, "/files/") {
		f.on.after = nil
		do()
	}
	return err
}

func openOn(t *testing.T, fs disk.FS, d *memdisk.Disk, h *holders) (*tree.Tree, *state.Store) {
	t.Helper()
	o := stateOptions(d)
	o.Disk = fs
	st, err := state.OpenWith("/state", o)
	if err != nil {
		t.Fatal(err)
	}
	files, err := backing.OpenOn(fs, "/files")
	if err != nil {
		t.Fatal(err)
	}
	tr, err := tree.Open(tree.Options{State: st, Backing: files, Content: h, Device: 1, Now: d.Now})
	if err != nil {
		t.Fatal(err)
	}
	return tr, st
}

// What an fsync has answered for is there after power loss, though somebody else
// wrote to the file while it was flushed, and it outgrew the journal.
func TestGrowsWhileItIsFlushed(t *testing.T) {
	d := memdisk.New()
	disk := &meanwhile{FS: d}
	tr, _ := openOn(t, disk, d, newHolders())
	f, _, err := tr.Create(ctx, tree.Root, "log", 0o644, os.O_RDWR, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	first, more := bytes.Repeat([]byte("A"), 5000), bytes.Repeat([]byte("B"), 20000)
	if _, err := f.WriteAt(ctx, first, 0, false); err != nil {
		t.Fatal(err)
	}
	disk.during = func() {
		if _, err := f.WriteAt(ctx, more, int64(len(first)), false); err != nil {
			t.Error(err)
		}
	}
	if err := f.Sync(ctx, false); err != nil {
		t.Fatal(err)
	}
	if disk.during != nil {
		t.Fatal("the journal was not flushed")
	}
	for _, loss := range d.Losses(d.Len(), rand.New(rand.NewPCG(1, 2)), 2) {
		after := d.PowerLoss(d.Len(), loss)
		tr, st := openOn(t, after, after, newHolders())
		if got := contentOf(t, tr, "log"); !bytes.HasPrefix(got, first) {
			t.Errorf("losing %s: %d bytes are there, not those that were flushed", loss.Name, len(got))
		}
		tr.Close()
		_ = st.Close()
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
	disk := &meanwhile{FS: d}
	tr, _ := openOn(t, disk, d, h)
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
		if err := h.commit(tr); err != nil {
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
	disk.after = func() { // beside the commit
		if _, err := f.ReadAt(ctx, make([]byte, 100), 2*dag.ChunkSize); err != nil {
			t.Error(err)
		}
	}
	commit()
	if disk.after != nil {
		t.Fatal("the commit flushed nothing")
	}
	for _, loss := range d.Losses(d.Len(), rand.New(rand.NewPCG(1, 2)), 2) {
		after := d.PowerLoss(d.Len(), loss)
		tr, st := openOn(t, after, after, h)
		if !bytes.Equal(contentOf(t, tr, "db"), want) {
			t.Errorf("losing %s: the content is another", loss.Name)
		}
		tr.Close()
		_ = st.Close()
	}
}
