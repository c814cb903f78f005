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
	"skep/test/memdisk"
)

// meanwhile is a disk on which something happens once while the journal is
// flushed.
type meanwhile struct {
	disk.FS
	during func()
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
	return f.File.Datasync()
}

func openOn(t *testing.T, fs disk.FS, d *memdisk.Disk) (*tree.Tree, *state.Store) {
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
	tr, err := tree.Open(tree.Options{State: st, Backing: files, Device: 1, Now: d.Now})
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
	tr, _ := openOn(t, disk, d)
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
		tr, st := openOn(t, after, after)
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
