package writeback_test

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// As long as a file cannot be read, and nothing else changes, commits that are tried again
// publish nothing and take no room at holders; what has to be said for another reason is.
func TestNothingTakenIsNotPublished(t *testing.T) {
	fs := &unreadable{FS: disk.Local, from: 2 << 20}
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, fs: fs}
	gone := func(group.ID, uint16) bool { return false }
	d.gone = func(id group.ID, n uint16) bool { return gone(id, n) }
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	old, changed := random(1, 3<<20), random(2, 3<<20)
	want := map[string]string{"f": string(old), "dir/": ""}
	d.put("f", old)
	d.putting(want)("dir/else", random(3, 100_000))
	d.sync()
	fs.fails.Store(true)
	d.put("f", changed)
	try := func() {
		t.Helper()
		if err := d.tryUnread(); !slices.Equal(err.Paths, []string{"/f"}) || !errors.Is(err, unix.EIO) {
			t.Fatalf("sync: %v", err)
		}
	}
	said := func(what string) {
		t.Helper()
		heads := swarm.Published()
		try()
		if n := swarm.Published() - heads; n != 1 {
			t.Errorf("%d commits were published that say %s", n, what)
		}
		try() // packs may be folded
		d.saysNothing()
		check(t, d.committed(), want)
	}
	heads := swarm.Published()
	try()
	if n := swarm.Published() - heads; n != 0 {
		t.Errorf("%d commits were published when the file changed", n)
	}
	d.saysNothing()
	d.putting(want)("dir/else", []byte("something else"))
	said("what changed beside it")
	lost := swarm.Head().Commit
	gone = func(id group.ID, n uint16) bool { return id == lost.Group && n == lost.Number }
	said("what was lost")
	fs.fails.Store(false)
	d.sync()
	want["f"] = string(changed)
	check(t, d.committed(), want)
	d.audit()

	fs.fails.Store(true)
	d.put("f", old)
	try()
	d.saysNothing()
	if err := d.table.MoveSlot(lost.Group, 0, group.PeerKey{99}); err != nil {
		t.Fatal(err)
	}
	said("that a slot has another holder")
}

// Nor do they as long as a recovered device has not counted references, as it cannot read
// all of the metadata; but what is stored again then, as it is not known to be there, is
// told of.
func TestNothingTakenIsNotPublishedBeforeReferencesAreCounted(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	first.put("quiet/f", random(1, 2<<20))
	first.sync()
	quiet := swarm.Head().Commit
	first.put("busy", random(2, 3<<20))
	first.put("again", random(3, 100_000))
	first.sync()

	source := &partly{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, number: 1, source: source}
	var away, lost atomic.Bool // content
	isContent := func(id group.ID) bool {
		g, known, err := first.table.Group(id)
		return err == nil && known && g.Kind == group.Content
	}
	d.gone = func(id group.ID, _ uint16) bool { return lost.Load() && isContent(id) }
	refuse := func(ref group.PackRef) bool {
		return away.Load() && isContent(ref.Group) || ref.Group == quiet.Group && ref.Number < quiet.Number
	}
	source.refuse.Store(&refuse)
	d.recover()
	again := must(d.tree.Open(ctx, must(d.tree.Find(ctx, "again")).Ino, os.O_RDWR))
	defer again.Release()
	if _, err := again.ReadAt(ctx, make([]byte, 100_000), 0); err != nil {
		t.Fatal(err)
	}
	away.Store(true)
	f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, "busy")).Ino, os.O_RDWR))
	defer f.Release()
	if _, err := f.WriteAt(ctx, []byte("edited"), 1<<20+100, false); err != nil {
		t.Fatal(err)
	}
	rests := func() {
		t.Helper()
		d.saysNothing()
		if counted, err := d.table.Counted(); err != nil || counted {
			t.Fatal("all references are counted: the test shows nothing", err)
		}
	}
	d.tryUnread() // what an earlier run stored is not known
	rests()
	lost.Store(true)
	taken, _, err := d.tree.Again(ctx, must(d.tree.Find(ctx, "again")).Ino, []int64{0}, []int64{0})
	if err != nil || taken != 1 {
		t.Fatal(taken, err)
	}
	heads, stored := swarm.Published(), swarm.Stored()
	d.tryUnread()
	if n, more := swarm.Published()-heads, swarm.Stored()-stored; n != 1 || more == 0 {
		t.Errorf("%d commits tell of what was stored again", n)
	}
	rests()
}
