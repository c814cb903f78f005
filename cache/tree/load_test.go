package tree

import (
	"context"
	"errors"
	"testing"

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
