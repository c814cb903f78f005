package writeback_test

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// A file of which no commit has a name, as the table of linked inodes cannot be read,
// keeps what holders alone have of it.
func TestLeftOutContentIsKept(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{}
	first.putting(want)("f", random(5, 900_000))
	first.put("x", random(7, 3000))
	must(first.tree.Link(ctx, must(first.tree.Find(ctx, "x")).Ino, tree.Root, "y"))
	first.sync()
	first.close()

	source := &partly{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1}
	d.alone = func(time.Time) bool { return false } // else the table is moved
	d.recover()
	d.counted()
	metadata := map[group.ID]bool{} // of the first device, with the table
	for _, g := range must(d.table.Groups()) {
		metadata[g.ID] = g.Kind == group.Metadata && g.Founder != group.PeerKey(d.key().Public().(ed25519.PublicKey))
	}
	d.listTree()
	d.ticks() // from now on the root directory is this device's own
	must(d.tree.Evict(ctx, must(d.tree.Find(ctx, "f")).Ino, false))
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	d.close()
	refuse := func(ref group.PackRef) bool { return metadata[ref.Group] }
	source.refuse.Store(&refuse)
	d.alone = nil
	d.open(nil)
	ino := must(d.tree.Find(ctx, "f")).Ino
	must(d.tree.Link(ctx, ino, tree.Root, "c"))
	if err := d.tree.Unlink(ctx, tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		d.put("tick", fmt.Append(nil, i))
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) {
			t.Fatalf("sync beside a table that cannot be read: %v", err)
		}
	}
	if _, there := d.committed()["c"]; there {
		t.Fatal("the commit has the file: the test shows nothing")
	}
	f := must(d.tree.Open(ctx, ino, os.O_RDONLY))
	defer f.Release()
	if string(readAll(t, f, len(want["f"]))) != want["f"] {
		t.Error("the content is another one")
	}
}
