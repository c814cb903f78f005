package writeback_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/blocks"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/test/memswarm"
	"skep/test/seed"
)

// replace puts a file where another one was, in one step.
func (d *device) replace(path string, content []byte) error {
	dir, name := d.parent(path)
	d.put("new", content)
	return d.tree.Rename(ctx, tree.Root, "new", dir, name, 0)
}

// auditNames lists the tree, which brings it here, and compares all rows of it.
func (d *device) auditNames() map[string]string {
	d.t.Helper()
	names := d.listTree()
	if err := d.tree.Audit(ctx, func(path, what string) { d.t.Errorf("%s: %s", path, what) }, nil); err != nil {
		d.t.Fatal(err)
	}
	return names
}

// A name that a commit without content keeps though it leads to a new file counts: whoever
// goes on from that commit has it when all others are removed.
func TestNameKeptByALeanCommitIsCounted(t *testing.T) {
	for _, others := range []int{1, 2} {
		d, sink, _ := fullDevice(t, 1<<30)
		want := map[string]string{"now/": ""}
		put := d.putting(want)
		put("now/a", random(1, 100_000))
		d.put("gone", random(2, 8<<20))
		d.put("old", random(4, 1<<20))
		a := must(d.tree.Find(ctx, "now/a"))
		for i := range others {
			day, _ := d.parent(fmt.Sprint("day", i, "/a"))
			must(d.tree.Link(ctx, a.Ino, day, "a"))
		}
		d.sync()
		d.fillUp(sink)
		if err := d.replace("now/a", random(3, 2<<20)); err != nil {
			t.Fatal(err)
		}
		d.remove("gone")
		d.syncFull()
		sink.room, _ = d.swarm.Bytes()
		d.remove("old")
		before := d.swarm.Head().Number
		d.syncFull() // counts it once, too
		if d.swarm.Head().Number == before {
			t.Fatal("no second commit")
		}

		r := recovered(t, d.swarm)
		r.auditNames()
		for i := range others {
			day, name := r.parent(fmt.Sprint("day", i, "/a"))
			if err := r.tree.Unlink(ctx, day, name); err != nil {
				t.Fatal(err)
			}
			if err := r.tree.Rmdir(ctx, tree.Root, fmt.Sprint("day", i)); err != nil {
				t.Fatal(err)
			}
		}
		r.sync()
		check(t, r.committed(), want)
		r.close()
		r.open(nil)
		check(t, r.auditNames(), want)
	}
}

// The same file, when there is room for the new one: its names count as they are.
func TestNameThatWasKeptCountsNoMore(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	d.put("a", random(1, 100_000))
	d.link("a", "b")
	d.put("gone", random(2, 8<<20))
	d.sync()
	d.fillUp(sink)
	if err := d.replace("a", random(3, 2<<20)); err != nil {
		t.Fatal(err)
	}
	d.remove("gone")
	d.syncFull()
	sink.room = 1 << 30
	d.sync()
	r := recovered(t, d.swarm)
	want := map[string]string{"a": string(random(3, 2<<20)), "b": string(random(1, 100_000)), "waits": string(random(99, 1500<<10))}
	check(t, r.auditNames(), want)
	r.remove("b")
	r.sync()
	delete(want, "b")
	check(t, r.committed(), want)
	r.audit()
}

// A folder is replaced by a file for which there is no room. What was in it has other names,
// and these alone.
func TestLeanCommitKeepsNoFolderForAFile(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	d.put("a/x", random(1, 100_000))
	d.put("a/s/z", random(7, 100_000))
	d.put("old", random(2, 8<<20))
	d.sync()
	d.fillUp(sink)
	a, _ := d.parent("a/x")
	for name, to := range map[string]string{"x": "y", "s": "t"} {
		if err := d.tree.Rename(ctx, a, name, tree.Root, to, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.tree.Rmdir(ctx, tree.Root, "a"); err != nil {
		t.Fatal(err)
	}
	d.put("a", random(3, 2<<20))
	d.remove("old")
	d.syncFull()
	want := map[string]string{"y": string(random(1, 100_000)), "t/": "", "t/z": string(random(7, 100_000))}
	check(t, d.committed(), want)
	check(t, recovered(t, d.swarm).auditNames(), want)
}

// A file of several names was deleted in a full swarm, and its place in the table of linked
// inodes cannot be read. Commits without content try that less and less often, and let go
// of the file when it can.
func TestUnreadLinksAreTriedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := memswarm.New(9, 4, 7)
		first := &device{t: t, dir: t.TempDir(), swarm: swarm}
		first.open(newDrive)
		first.put("gone", random(1, 8<<20))
		first.put("keep", random(2, 1<<20))
		first.link("gone", "gone2")
		first.link("keep", "keep2")
		first.sync()
		first.put("y", random(3, 1000)) // its pack has the newest commit
		first.sync()
		first.close()
		source := &partly{Swarm: swarm}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1,
			timing: writeback.Timing{Quiet: time.Minute, Most: 5 * time.Minute, Retry: 5 * time.Minute}}
		t.Cleanup(func() { time.Sleep(time.Minute) })
		d.recover()
		d.listTree()
		d.stores(1)
		d.forgetMetadata(source)
		sink := &offered{swarm, 1 << 30}
		d.sink = sink
		d.open(nil)
		d.fillUp(sink)
		have, _ := swarm.Bytes()
		d.remove("gone")
		d.remove("gone2")
		if n, _ := d.stores(4); n == 0 || n > 10 {
			t.Errorf("%d commits in four hours", n)
		}
		if n, _ := d.stores(8); n > 3 {
			t.Errorf("%d commits in eight hours more", n)
		}
		if left, _ := swarm.Bytes(); left < have-8<<20 {
			t.Fatal("the table could be read: the test shows nothing")
		}
		source.refuse.Store(nil)
		d.stores(5)
		if left, _ := swarm.Bytes(); left > have-8<<20 {
			t.Errorf("%d of %d bytes are left", left, have)
		}
	})
}

// Whatever is made of names, by one device after the other, in a swarm that is full at
// times: each commit can be read, whoever goes on from it has each name once and counts
// them right, and nothing is missing at the end.
func TestRandomLeanCommits(t *testing.T) {
	rnd := rand.New(rand.NewPCG(seed.For(t), 2))
	swarm := memswarm.New(9, 4, 7)
	sink := &offered{swarm, 1 << 40}
	d := askingDevice(t, swarm, sink, 0)
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	d.put("waits", nil)
	d.sync()
	full, lean := false, 0
	for range 400 {
		switch rnd.IntN(20) {
		case 0, 1:
			if full = !full; full {
				sink.room, _ = swarm.Bytes()
				sink.room -= 100_000
				break
			}
			sink.room = 1 << 40
		case 2, 3, 4:
			if full {
				d.put("waits", random(rnd.Uint64(), 600_000))
			}
			before := swarm.Head().Number
			err := d.engine.Sync(ctx)
			got := d.committed()
			switch {
			case errors.Is(err, writeback.ErrNoRoom):
				lean += int(swarm.Head().Number - before)
			case err != nil:
				t.Fatal(err)
			default:
				check(t, got, d.listTree())
			}
		case 5:
			if rnd.IntN(2) > 0 {
				break
			}
			d.tree.Close()
			d.close()
			next := askingDevice(t, swarm, sink, d.number+1)
			next.recover()
			d = next
			check(t, d.auditNames(), d.committed())
		default:
			d.change(rnd)
		}
		if t.Failed() {
			return
		}
	}
	sink.room = 1 << 40
	d.sync()
	want := d.committed()
	check(t, d.auditNames(), want)
	t.Log(lean, "commits without content,", d.number, "recoveries")
}

// askingDevice is a device that knows of each pack whether its holders have it, as from
// their statements.
func askingDevice(t *testing.T, swarm *memswarm.Swarm, sink writeback.Sink, number uint32) *device {
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish, class: 20, number: number}
	d.gone = func(id group.ID, n uint16) bool {
		return !slices.ContainsFunc(swarm.Packs(), func(p group.PackRef) bool { return p.Group == id && p.Number == n })
	}
	d.said = func(p blocks.Pack) int {
		if d.gone(p.Group, p.Number) {
			return 0
		}
		return 7
	}
	return d
}

// change does something at random with names and files, unless it cannot be done.
func (d *device) change(rnd *rand.Rand) {
	place := func() (dir tree.Ino, name string) {
		dir = tree.Root
		for rnd.IntN(2) > 0 {
			a, err := d.tree.Lookup(ctx, dir, string(rune('p'+rnd.IntN(2))))
			if err != nil || a.Mode&dag.ModeType != dag.ModeDirectory {
				break
			}
			dir = a.Ino
		}
		i := rnd.IntN(len("abpq"))
		return dir, "abpq"[i : i+1]
	}
	dir, name := place()
	to, other := place()
	a, err := d.tree.Lookup(ctx, dir, name)
	content := random(rnd.Uint64(), []int{40, 3000, 100_000, 300_000}[rnd.IntN(4)])
	switch do := rnd.IntN(10); {
	case do < 2: // a new file, where something else may be
		d.put("new", content)
		_ = d.tree.Rename(ctx, tree.Root, "new", dir, name, 0)
	case do < 3:
		_, _ = d.tree.Mkdir(ctx, dir, name, 0o755, tree.Owner{})
	case err != nil: // nothing is there
	case do < 4:
		_ = d.tree.Unlink(ctx, dir, name)
		_ = d.tree.Rmdir(ctx, dir, name)
	case do < 6:
		_ = d.tree.Rename(ctx, dir, name, to, other, 0)
	case do < 8:
		_, _ = d.tree.Link(ctx, a.Ino, to, other)
	case do < 9:
		size := int64(rnd.IntN(3) * 300)
		_, _ = d.tree.SetAttr(ctx, a.Ino, tree.SetAttr{Size: &size})
	default:
		if f, err := d.tree.Open(ctx, a.Ino, os.O_RDWR|os.O_TRUNC); err == nil {
			if _, err := f.WriteAt(ctx, content, 0, false); err != nil {
				d.t.Fatal(err)
			}
			f.Release()
		}
	}
}
