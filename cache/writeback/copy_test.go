package writeback_test

import (
	"os"
	"testing"

	"skep/cache/tree"
	"skep/test/memswarm"
)

// A copy by reference is in commits like any file, also when its original is gone.
func TestCopyOutlivesItsOriginal(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := random(1, unlinkedSize)
	d.put("f", want)
	d.sync()
	before, _ := swarm.Bytes()
	ino := must(d.tree.Find(ctx, "f")).Ino
	must(d.tree.Evict(ctx, ino, false))
	src := must(d.tree.Open(ctx, ino, os.O_RDONLY))
	dst, _, err := d.tree.Create(ctx, tree.Root, "copy", 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	must(dst.CopyWhole(src, int64(len(want)), false))
	src.Release()
	dst.Release()
	if err := d.tree.Unlink(ctx, tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	d.tree.Forget(ino)
	d.ticks()
	d.audit()
	check(t, d.committed(), map[string]string{"copy": string(want), "tick": "2"})
	check(t, d.listTree(), map[string]string{"copy": string(want), "tick": "2"})
	if after, _ := swarm.Bytes(); after > before+before/4 {
		t.Errorf("%d bytes with holders, %d before the copy", after, before)
	}
}
