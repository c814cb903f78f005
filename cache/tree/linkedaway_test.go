package tree

import (
	"context"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skep/chunker/dag"
	"skep/chunker/link"
)

// linkedAway has a directory of which some entries have other names too, and nobody
// who knows what they are.
type linkedAway struct {
	committed
	asked int
}

func (l *linkedAway) Dir(_ context.Context, _ link.Link, fn func(string, dag.Inode) error) error {
	for i, name := range []string{"a", "b", "c", "d"} {
		linked := name == "b" || name == "c"
		if err := fn(name, dag.Inode{ID: uint64(100 + i), Mode: modeReg | 0o644, Nlink: 1, Linked: linked}); err != nil {
			return err
		}
	}
	return nil
}

func (l *linkedAway) Linked(context.Context, uint64) (dag.Inode, error) {
	l.asked++
	return dag.Inode{}, ErrUnreachable
}

// A directory can be listed though it has files of several names about which nobody
// answers, and it is asked about one of them only.
func TestListWithLinkedFilesOutOfReach(t *testing.T) {
	content := &linkedAway{}
	d := newDevice(t, Options{Content: content})
	d.unload(Root, link.Link{Codec: link.DagPB, Hash: link.Hash{1}})
	var names, bare []string
	must(t, d.ReadDir(ctx, Root, 0, func(e DirEntry) bool {
		names = append(names, e.Name)
		if e.Bare {
			bare = append(bare, e.Name)
		}
		if e.Attr.Mode&unix.S_IFMT != unix.S_IFREG || e.Attr.Ino == 0 {
			t.Errorf("%s: %+v", e.Name, e.Attr)
		}
		return true
	}))
	slices.Sort(names)
	slices.Sort(bare)
	if !slices.Equal(names, []string{"a", "b", "c", "d"}) || !slices.Equal(bare, []string{"b", "c"}) {
		t.Errorf("%q are listed, %q of them without attributes", names, bare)
	}
	if content.asked != 1 {
		t.Errorf("asked %d times", content.asked)
	}
}
