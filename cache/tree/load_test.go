package tree

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/journal"
	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// directories are those of commits, by their roots.
type directories struct {
	committed
	of     map[link.Link][]string
	before func(name string) // an entry is told
	xattrs map[string][]byte // of each
}

func (d *directories) Dir(_ context.Context, root link.Link, fn func(string, dag.Inode) error) error {
	for i, name := range d.of[root] {
		d.before(name)
		if err := fn(name, dag.Inode{ID: uint64(100 + i), Mode: modeReg | 0o644, Nlink: 1, Xattrs: d.xattrs}); err != nil {
			return err
		}
	}
	return nil
}

// unload makes the entries of a directory those of a commit that are still to come.
func (d *device) unload(dir Ino, root link.Link) {
	d.t.Helper()
	in, err := d.acquire(ctx, dir)
	must(d.t, err)
	defer d.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.row.content, in.row.flags = root, in.row.flags&^flagLoaded
}

// Entries come from a commit whatever attributes they have, though a record of the
// journal takes no more than some.
func TestLoadEntriesWithLargeAttributes(t *testing.T) {
	root, names := link.Link{Codec: link.DagPB, Hash: link.Hash{1}}, make([]string, 2*journal.MaxRecord/xattrTotalMax)
	for i := range names {
		names[i] = fmt.Sprint(i)
	}
	c := &directories{of: map[link.Link][]string{root: names}, before: func(string) {}, xattrs: map[string][]byte{}}
	for i := range xattrTotalMax/xattrValueMax - 1 {
		c.xattrs[fmt.Sprint("user.", i)] = make([]byte, xattrValueMax)
	}
	d := newDevice(t, Options{Content: c})
	d.unload(Root, root)
	n := 0
	must(t, d.ReadDir(ctx, Root, 0, func(DirEntry) bool { n++; return true }))
	if n != len(names) {
		t.Errorf("%d entries of %d", n, len(names))
	}
}

// The root of a drive has its attributes on a device that begins with a commit, too.
func TestAdoptAttributesOfTheRoot(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Open(filepath.Join(dir, "state"))
	must(t, err)
	root := dag.Inode{ID: uint64(Root), Mode: modeDir | 0o755, Nlink: 2, Xattrs: map[string][]byte{"user.a": []byte("kept")}}
	must(t, Adopt(st, root, 0, 0))
	must(t, st.Close())
	d := &device{t: t, dir: dir}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	if v, err := d.GetXattr(ctx, Root, "user.a"); err != nil || string(v) != "kept" {
		t.Errorf("%q, %v", v, err)
	}
}

// However many directories there are, a device that lost its index gets their entries
// from the commit.
func TestAdoptManyDirectories(t *testing.T) {
	st, err := state.Open(t.TempDir())
	must(t, err)
	defer st.Close()
	r := row{mode: modeDir, flags: flagLoaded, name: strings.Repeat("n", NameMax), content: link.Link{Codec: link.DagPB, Hash: link.Hash{1}}}
	last := Ino(16 + journal.MaxRecord/len(r.encode()))
	var b state.Batch
	for ino := Ino(16); ino <= last; ino++ {
		if b.Put(key(tableInode, ino), r.encode()); b.Len() == 1000 || ino == last {
			_, err := st.Apply(&b)
			must(t, err)
			b.Reset()
		}
	}
	must(t, Adopt(st, dag.Inode{ID: uint64(Root), Mode: modeDir | 0o755, Nlink: 2, Content: r.content}, 0, 0))
	for _, ino := range []Ino{Root, 16, last} {
		v, _, err := st.Get(key(tableInode, ino))
		must(t, err)
		if r, err := decodeRow(v); err != nil || r.has(flagLoaded) {
			t.Errorf("inode %d is taken to have its entries here, %v", ino, err)
		}
	}
}

// What was removed stays so when a commit takes the removal while the directory
// comes from the commit before.
func TestCommitWhileADirectoryIsLoaded(t *testing.T) {
	old, now := link.Link{Codec: link.DagPB, Hash: link.Hash{1}}, link.Link{Codec: link.DagPB, Hash: link.Hash{2}}
	c := &directories{of: map[link.Link][]string{old: {"removed", "kept"}, now: {"kept"}}}
	d := newDevice(t, Options{Content: c})
	d.unload(Root, old)
	var b state.Batch
	b.Put(markKey(Root, "removed"), uint64Value(d.epoch.Load()))
	_, err := d.st.Apply(&b)
	must(t, err)
	c.before = func(name string) {
		if name != "removed" {
			return
		}
		cut, err := d.Cut()
		must(t, err)
		defer cut.Close()
		must(t, cut.Settle(ctx, []Settled{{Ino: Root, Content: now}}))
		must(t, cut.ClearMarks(nil))
	}
	if _, err := d.Lookup(ctx, Root, "kept"); err != nil {
		t.Error("what is there:", err)
	}
	if _, err := d.Lookup(ctx, Root, "removed"); !errors.Is(err, ErrNotFound) {
		t.Error("what was removed:", err)
	}
}

// A directory whose entries nobody can have now is moved all the same; only one whose
// place is taken must be known to be empty.
func TestRenameWithoutEntries(t *testing.T) {
	d := newDevice(t, Options{})
	for _, name := range []string{"a", "b", "c"} {
		made, err := d.Mkdir(ctx, Root, name, 0o755, Owner{})
		must(t, err)
		d.unload(made.Ino, link.Link{Codec: link.DagPB, Hash: link.Hash{1}})
	}
	must(t, d.Rename(ctx, Root, "a", Root, "new", 0))
	must(t, d.Rename(ctx, Root, "new", Root, "b", unix.RENAME_EXCHANGE))
	if err := d.Rename(ctx, Root, "b", Root, "c", unix.RENAME_NOREPLACE); !errors.Is(err, ErrExists) {
		t.Error("what is there:", err)
	}
	if err := d.Rename(ctx, Root, "b", Root, "c", 0); !errors.Is(err, ErrUnreachable) {
		t.Error("in the place of what may have entries:", err)
	}
	for _, name := range []string{"b", "c", "new"} {
		if _, err := d.Lookup(ctx, Root, name); err != nil {
			t.Error(name, err)
		}
	}
}
