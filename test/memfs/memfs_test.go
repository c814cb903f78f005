package memfs

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// TestFiles: what is written under a name is read under the next, until it goes.
func TestFiles(t *testing.T) {
	f := New()
	root := fuse.InHeader{NodeId: 1}
	var out fuse.CreateOut
	want(t, f.Create(nil, &fuse.CreateIn{InHeader: root, Mode: 0o644}, "a", &out), fuse.OK)
	want(t, f.Create(nil, &fuse.CreateIn{InHeader: root}, "a", &out), fuse.Status(unix.EEXIST))
	in := fuse.WriteIn{InHeader: fuse.InHeader{NodeId: out.NodeId}, Offset: pageSize - 2}
	if n, st := f.Write(nil, &in, []byte("text")); n != 4 || st != fuse.OK {
		t.Errorf("write: %d, %v", n, st)
	}
	want(t, f.Rename(nil, &fuse.RenameIn{InHeader: root, Newdir: 1}, "a", "b"), fuse.OK)
	var e fuse.EntryOut
	want(t, f.Lookup(nil, &root, "b", &e), fuse.OK)
	if e.NodeId != out.NodeId || e.Size != pageSize+2 {
		t.Errorf("got %+v", e)
	}
	buf := make([]byte, 8)
	r, st := f.Read(nil, &fuse.ReadIn{InHeader: fuse.InHeader{NodeId: e.NodeId}, Offset: pageSize - 4, Size: 8}, buf)
	want(t, st, fuse.OK)
	if b, _ := r.Bytes(nil); string(b) != "\x00\x00text" {
		t.Errorf("read %q", b)
	}
	list := fuse.NewDirEntryList(make([]byte, 500), 0)
	want(t, f.ReadDir(nil, &fuse.ReadIn{InHeader: root}, list), fuse.OK)
	if names, err := fuse.ParseDirEntries(list.Bytes()); err != nil || len(names) != 3 || names[2].Name != "b" {
		t.Errorf("listed %v, %v", names, err)
	}
	want(t, f.Unlink(nil, &root, "b"), fuse.OK)
	want(t, f.Unlink(nil, &root, "b"), fuse.ENOENT)
	f.Forget(e.NodeId, 1)
	if len(f.nodes) != 1 {
		t.Errorf("%d nodes are left", len(f.nodes))
	}
}

func want(t *testing.T, got, want fuse.Status) {
	t.Helper()
	if got != want {
		t.Fatalf("got %v, want %v", got, want)
	}
}
