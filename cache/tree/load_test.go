package tree

import (
	"context"
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// directories are those of commits, by their roots.
type directories struct {
	committed
	of     map[link.Link][]string
	before func(name string) // an entry is told
}

func (d *directories) Dir(_ context.Context, root link.Link, fn func(string, dag.Inode) error) error {
	for i, name := range d.of[root] {
		d.before(name)
		if err := fn(name, dag.Inode{ID: uint64(100 + i), Mode: modeReg | 0o644, Nlink: 1}); err != nil {
			return err
		}
	}
	return nil
}

// What was removed stays so when a commit takes the removal while the directory
// comes from the commit before.
func TestCommitWhileADirectoryIsLoaded(t *testing.T) {
	old, now := link.Link{Codec: link.DagPB, Hash: link.Hash{1}}, link.Link{Codec: link.DagPB, Hash: link.Hash{2}}
	c := &directories{of: map[link.Link][]string{old: {"removed", "kept"}, now: {"kept"}}}
	d := newDevice(t, Options{Content: c})
	root, err := d.acquire(ctx, Root)
	must(t, err)
	root.mu.Lock()
	root.row.content, root.row.flags = old, root.row.flags&^flagLoaded
	root.mu.Unlock()
	d.release(root)
	var b state.Batch
	b.Put(markKey(Root, "removed"), uint64Value(d.epoch.Load()))
	_, err = d.st.Apply(&b)
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
		in, err := d.acquire(ctx, made.Ino)
		must(t, err)
		in.mu.Lock()
		in.row.content, in.row.flags = link.Link{Codec: link.DagPB, Hash: link.Hash{1}}, in.row.flags&^flagLoaded
		in.mu.Unlock()
		d.release(in)
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
