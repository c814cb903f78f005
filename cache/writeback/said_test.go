package writeback_test

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/cache/writeback"
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
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) || !slices.Equal(unread.Paths, []string{"/f"}) || !errors.Is(err, unix.EIO) {
			t.Fatalf("sync: %v", err)
		}
	}
	rests := func() {
		t.Helper()
		heads, stored := swarm.Published(), swarm.Stored()
		for range 10 {
			try()
		}
		if n, more := swarm.Published()-heads, swarm.Stored()-stored; n != 0 || more != 0 {
			t.Errorf("%d commits were published, and %d bytes stored, that say nothing new", n, more)
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
		rests()
		check(t, d.committed(), want)
	}
	heads := swarm.Published()
	try()
	if n := swarm.Published() - heads; n != 0 {
		t.Errorf("%d commits were published when the file changed", n)
	}
	rests()
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
	rests()
	if err := d.table.MoveSlot(lost.Group, 0, group.PeerKey{99}); err != nil {
		t.Fatal(err)
	}
	said("that a slot has another holder")
}
