package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/test/memswarm"
)

// offered is a sink whose holders have room for so many bytes together, and for
// metadata a bit more.
type offered struct {
	*memswarm.Swarm
	room int64
}

func (o *offered) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	have, _ := o.Bytes()
	for _, s := range shards {
		have += int64(len(s))
	}
	if g.Kind == group.Metadata {
		have -= 4 << 20
	}
	if have > o.room {
		return group.SlotSet{}, writeback.ErrNoRoom
	}
	return o.Swarm.Store(ctx, g, lease, manifest, shards)
}

// In a swarm that is full, deleting what is out makes room for what is not, as long as
// that waits, with no more commits than that takes.
func TestDeletingMakesRoomForWhatWaits(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &offered{swarm, 30 << 20}
	published := 0
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}}
	d.publish = func(ctx context.Context, h commit.Head) error {
		published++
		return swarm.Publish(ctx, h)
	}
	d.open(newDrive)
	t.Cleanup(d.close)
	want := map[string]string{}
	put := d.putting(want)
	for i := range 4 {
		put(fmt.Sprint("old", i), random(uint64(i), (1+i/2)*1250<<10))
		d.sync()
	}
	out := maps.Clone(want)
	for i := range 3 {
		put(fmt.Sprint("new", i), random(uint64(10+i), 1500<<10))
	}
	put("old0", random(20, 1500<<10)) // changed, and kept as it was until then
	full := func() {
		t.Helper()
		if err := d.engine.Sync(ctx); !errors.Is(err, writeback.ErrTooFew) {
			t.Fatalf("a sync into a full swarm: %v", err)
		}
	}
	full()
	before := published
	full()
	if published > before {
		t.Errorf("%d commits of what does not fit", published-before)
	}
	if err := d.tree.Rename(ctx, tree.Root, "old1", tree.Root, "renamed", 0); err != nil {
		t.Fatal(err)
	}
	out["renamed"] = out["old1"]
	want["renamed"] = want["old1"]
	delete(out, "old1")
	put("old1", random(21, 1500<<10)) // a new file where another one was, that has another name
	for _, name := range []string{"old2", "old3"} {
		if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
			t.Fatal(err)
		}
		delete(out, name)
		delete(want, name)
	}
	have, _ := swarm.Bytes()
	full()
	check(t, d.committed(), out)
	if left, _ := swarm.Bytes(); left > have-10<<20 {
		t.Errorf("%d of %d bytes are left", left, have)
	}
	sink.room = 1 << 30 // packs come in few sizes: what is free is not quite what fits
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}

// What a commit has stored before it found no room is not stored again by the next one.
func TestWhatFitsIsStoredOnce(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &offered{swarm, 1 << 30}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}}
	d.publish = swarm.Publish
	d.open(newDrive)
	t.Cleanup(d.close)
	d.put("old", random(1, 1<<20))
	d.sync()
	d.put("new", random(2, 40<<20))
	before, _ := swarm.Bytes()
	sink.room = before + 40<<20
	for range 3 {
		if err := d.engine.Sync(ctx); !errors.Is(err, writeback.ErrTooFew) {
			t.Fatal(err)
		}
		if now, _ := swarm.Bytes(); now < before+20<<20 {
			t.Fatalf("%d bytes, %d before", now, before)
		}
	}
	sink.room = 1 << 30
	d.sync()
	if now, _ := swarm.Bytes(); now > before+100<<20 {
		t.Errorf("%d bytes for 40 MiB", now-before)
	}
}

// What a commit that found no room has moved out of packs stays in these, too, until a
// commit tells where it is: the newest one names the old places.
func TestWhatWasMovedInVainIsNotGivenUp(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &offered{swarm, 1 << 30}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}}
	d.publish = swarm.Publish
	d.open(newDrive)
	t.Cleanup(d.close)
	want := map[string]string{}
	put := d.putting(want)
	for i := range 40 {
		put(fmt.Sprintf("dir%d/file", i%8), random(uint64(i), 3000+i))
		put(fmt.Sprintf("other%d/file%d", i%8, i), random(uint64(100+i), 2000))
		want[fmt.Sprintf("dir%d/", i%8)], want[fmt.Sprintf("other%d/", i%8)] = "", ""
		d.sync()
	}
	have, _ := swarm.Bytes()
	sink.room = have
	d.put("new", random(2, 20<<20))
	for range 3 {
		if err := d.engine.Sync(ctx); !errors.Is(err, writeback.ErrTooFew) {
			t.Fatal(err)
		}
	}
	if moved, err := d.table.Moved(); err != nil || moved == 0 {
		t.Fatalf("nothing was moved: %v", err)
	}
	check(t, d.committed(), want)
}

// forgetMetadata closes the device, which forgets what it has in memory, and has no
// metadata that is out read from now on.
func (d *device) forgetMetadata(source *partly) {
	metadata := map[group.ID]bool{}
	for _, g := range must(d.table.Groups()) {
		metadata[g.ID] = g.Kind == group.Metadata
	}
	d.tree.Close()
	d.close()
	refuse := func(p group.PackRef) bool { return metadata[p.Group] }
	source.refuse.Store(&refuse)
}

// fullDevice is a device in a swarm that takes content up to room bytes in all, and counts
// the commits that are published.
func fullDevice(t *testing.T, room int64) (d *device, sink *offered, published *int) {
	swarm := memswarm.New(9, 4, 7)
	sink, published = &offered{swarm, room}, new(int)
	d = &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, pass: true}
	d.publish = func(ctx context.Context, h commit.Head) error {
		*published++
		return swarm.Publish(ctx, h)
	}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d, sink, published
}

// fillUp has no more content fit into the swarm, and some wait.
func (d *device) fillUp(sink *offered) {
	d.t.Helper()
	sink.room, _ = d.swarm.Bytes()
	d.put("waits", random(99, 1500<<10))
}

// syncFull syncs what does not fit.
func (d *device) syncFull() {
	d.t.Helper()
	if err := d.engine.Sync(ctx); !errors.Is(err, writeback.ErrNoRoom) {
		d.t.Fatalf("a sync into a full swarm: %v", err)
	}
}

// A file that the kernel is writing alone stays as it was, however little of it there is,
// and is no reason for a commit without content.
func TestLeanCommitTakesNoPassedFile(t *testing.T) {
	d, sink, published := fullDevice(t, 1<<30)
	want := map[string]string{}
	put := d.putting(want)
	put("f", random(1, 1<<20))
	put("old", random(2, 1<<20))
	d.sync()
	f := must(d.tree.Open(ctx, must(d.tree.Find(ctx, "f")).Ino, os.O_WRONLY|os.O_TRUNC))
	defer f.Release()
	passed(t, f, "little")
	d.fillUp(sink)
	before := *published
	d.syncFull()
	if *published > before {
		t.Errorf("%d commits though nothing is to be deleted", *published-before)
	}
	d.remove("old")
	delete(want, "old")
	d.syncFull()
	check(t, d.committed(), want)
	before = *published
	d.syncFull()
	if *published > before {
		t.Errorf("%d commits of the same", *published-before)
	}
}

// So does one of which a part is with holders alone, however little is left of it: that is
// stored as a block, to be fetched from, when there is room.
func TestLeanCommitTakesNoFilePartlyHere(t *testing.T) {
	d, sink, published := fullDevice(t, 1<<30)
	want := map[string]string{}
	put := d.putting(want)
	put("f", random(1, 1<<20))
	put("old", random(2, 1<<20))
	d.sync()
	ino := must(d.tree.Find(ctx, "f")).Ino
	must(d.tree.Evict(ctx, ino, false))
	size := int64(300)
	must(d.tree.SetAttr(ctx, ino, tree.SetAttr{Size: &size}))
	d.fillUp(sink)
	before := *published
	d.syncFull()
	if *published > before {
		t.Errorf("%d commits though nothing is to be deleted", *published-before)
	}
	d.remove("old")
	delete(want, "old")
	d.syncFull()
	check(t, d.committed(), want)
	sink.room = 1 << 30
	d.sync()
	want["f"], want["waits"] = want["f"][:size], string(random(99, 1500<<10))
	check(t, d.committed(), want)
	if s := must(d.tree.ContentState(ctx, ino)); s.Dirty || s.Content.IsZero() {
		t.Errorf("of what is left there is nothing to fetch: %+v", s)
	}
	d.audit()
}

func (d *device) remove(name string) {
	d.t.Helper()
	if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) rename(from, to string) {
	d.t.Helper()
	if err := d.tree.Rename(ctx, tree.Root, from, tree.Root, to, 0); err != nil {
		d.t.Fatal(err)
	}
}

// A file that was tiny, and has both grown and come to have another name, is under that
// as it was.
func TestLeanCommitOfATinyFileThatGrewAndMoved(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	want := map[string]string{}
	put := d.putting(want)
	put("tiny", []byte("tiny"))
	put("another", []byte("another"))
	put("old", random(2, 1<<20))
	d.sync()
	d.fillUp(sink)
	out := maps.Clone(want)
	put("tiny", random(3, 100_000))
	put("another", random(4, 100_000))
	d.rename("tiny", "moved")
	d.rename("another", "gone")
	d.put("another", random(5, 1<<20)) // a new one where it was
	d.remove("old")
	for range 2 {
		d.syncFull()
		check(t, d.committed(), map[string]string{"moved": out["tiny"], "gone": out["another"]})
		d.remove("waits")
		d.rename("moved", "again")
		d.rename("again", "moved")
		put("old", random(6, 1<<20))
		d.put("waits", random(99, 1500<<10))
	}
	sink.room = 1 << 30
	d.sync()
	check(t, d.committed(), map[string]string{"moved": want["tiny"], "gone": want["another"],
		"another": string(random(5, 1<<20)), "old": want["old"], "waits": string(random(99, 1500<<10))})
	d.audit()
}

// Where a new file of several names has one that an older file had, that has another one
// now, and one alone.
func TestLeanCommitNamesAFileOnce(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	want := map[string]string{}
	put := d.putting(want)
	put("a", random(1, 100_000))
	put("old", random(2, 1<<20))
	d.sync()
	d.fillUp(sink)
	d.rename("a", "b")
	d.put("a", random(3, 1<<20))
	d.link("a", "linked")
	d.remove("old")
	d.syncFull()
	check(t, d.committed(), map[string]string{"b": want["a"]})
}

func (d *device) link(name, to string) {
	d.t.Helper()
	must(d.tree.Link(ctx, must(d.tree.Find(ctx, name)).Ino, tree.Root, to))
}

// A new file has the name of one that had several, and that is not there any more: no
// name leads to that then.
func TestLeanCommitHasNoNameOfNothing(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	d.put("a", random(1, 100_000))
	d.link("a", "b")
	d.put("old", random(2, 1<<20))
	d.sync()
	d.fillUp(sink)
	d.remove("a")
	d.remove("b")
	d.remove("old")
	d.put("a", random(3, 1<<20))
	d.syncFull()
	check(t, d.committed(), nil)
	sink.room = 1 << 30
	d.sync()
	check(t, d.committed(), map[string]string{"a": string(random(3, 1<<20)), "waits": string(random(99, 1500<<10))})
}

// A file that was tiny, has grown, and has several names by now has them all.
func TestLeanCommitOfATinyFileThatGrewAndWasLinked(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	d.put("a", []byte("tiny"))
	d.put("old", random(2, 1<<20))
	d.sync()
	d.fillUp(sink)
	d.put("a", random(3, 100_000))
	d.link("a", "b")
	d.rename("a", "c")
	d.remove("old")
	d.syncFull()
	check(t, d.committed(), map[string]string{"b": "tiny", "c": "tiny"})
	sink.room = 1 << 30
	d.sync()
	check(t, d.committed(), map[string]string{"b": string(random(3, 100_000)), "c": string(random(3, 100_000)), "waits": string(random(99, 1500<<10))})
	d.audit()
}

// So has one that had several before.
func TestLeanCommitOfATinyLinkedFileThatGrewAndMoved(t *testing.T) {
	d, sink, _ := fullDevice(t, 1<<30)
	d.put("a", []byte("tiny"))
	d.link("a", "b")
	d.put("old", random(2, 1<<20))
	d.sync()
	d.fillUp(sink)
	d.put("a", random(3, 100_000))
	d.rename("a", "c")
	d.remove("old")
	for range 2 {
		d.syncFull()
		check(t, d.committed(), map[string]string{"b": "tiny", "c": "tiny"})
		sink.room, _ = d.swarm.Bytes()
	}
	sink.room = 1 << 30
	d.sync()
	check(t, d.committed(), map[string]string{"b": string(random(3, 100_000)), "c": string(random(3, 100_000)), "waits": string(random(99, 1500<<10))})
	d.audit()
}

// Packs whose content was stored again, as they could not be read then, are given up only
// when a commit tells where it is now.
func TestWhatWasStoredAgainInVainIsNotGivenUp(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &offered{swarm, 1 << 30}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish}
	away := map[place]bool{}
	d.gone = func(id group.ID, n uint16) bool { return away[place{id, n}] }
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	want := map[string]string{"dir/": ""}
	put := d.putting(want)
	put("dir/f", random(1, 2<<20))
	d.sync()
	err := d.table.Packs(func(p blocks.Pack) bool {
		away[place{p.Group, p.Number}] = p.Kind == group.Content
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	have, _ := swarm.Bytes()
	sink.room = have + 10<<20
	d.put("dir/f", random(1, 2<<20)) // the same, as for what goes out again
	d.put("waits", random(99, 20<<20))
	for range 2 {
		d.syncFull()
	}
	check(t, d.committed(), want)
}

// What a commit without content has let go of is given up also by a later run, when it is
// found then that this device is alone.
func TestWhatIsDeletedIsGivenUpByTheNextRun(t *testing.T) {
	d, sink, published := fullDevice(t, 1<<30)
	d.put("old", random(2, 4<<20))
	d.put("kept", random(3, 1<<20))
	d.sync()
	d.close()
	d.alone = func(time.Time) bool { return false }
	d.open(nil)
	d.fillUp(sink)
	d.remove("old")
	d.syncFull()
	have, _ := d.swarm.Bytes()
	d.close()
	d.open(nil)
	for range 2 {
		d.syncFull()
	}
	if *published > 3 {
		t.Errorf("%d commits", *published)
	}
	d.close()
	d.alone = nil
	d.open(nil)
	d.syncFull()
	if left, _ := d.swarm.Bytes(); left > have-3<<20 {
		t.Errorf("%d of %d bytes are left", left, have)
	}
	check(t, d.committed(), map[string]string{"kept": string(random(3, 1<<20))})
}

// noMetadata is a sink that has no room for metadata while it is full.
type noMetadata struct {
	*memswarm.Swarm
	full atomic.Bool
}

func (n *noMetadata) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if g.Kind == group.Metadata && n.full.Load() {
		return group.SlotSet{}, writeback.ErrNoRoom
	}
	return n.Swarm.Store(ctx, g, lease, manifest, shards)
}

// A device that joined the drive stores again what it does not know yet to be there, finds
// no room for the rest, and has counted all references then: the packs that the newest
// commit names are not given up.
func TestWhatWasStoredAgainWhileCountingIsNotGivenUp(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{"dir/": ""}
	put := first.putting(want)
	fill := func(n int) {
		for i := range n {
			put(fmt.Sprintf("dir/%d-%d", n, i), random(uint64(100*n+i), 1500))
		}
		first.sync()
	}
	put("dir/f", random(1, 2<<20))
	first.sync()
	var chunks []link.Hash
	err := first.table.Packs(func(p blocks.Pack) bool {
		for _, m := range must(first.table.Members(p.Group, p.Number)) {
			if p.Kind == group.Content {
				chunks = append(chunks, m.Link.Hash)
			}
		}
		return true
	})
	if err != nil || len(chunks) != 2 {
		t.Fatal(len(chunks), err)
	}
	fill(100)
	tail := swarm.Head().Commit // its pack has the larger segment
	fill(20)
	source := &partly{Swarm: swarm}
	refuse := func(p group.PackRef) bool { return p.Group == tail.Group && p.Number == tail.Number }
	source.refuse.Store(&refuse)
	sink := &noMetadata{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1, sink: sink, publish: swarm.Publish,
		timing: writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: 50 * time.Millisecond}}
	d.recover()
	d.putting(want)("note", []byte("note"))
	d.sync()
	sink.full.Store(true)
	d.put("dir/f", random(1, 2<<20))
	until := func(done func() bool) {
		t.Helper()
		for end := time.Now().Add(time.Minute); !done(); d.syncFull() {
			if time.Now().After(end) {
				t.Fatal("not after a minute")
			}
		}
	}
	until(func() bool { // both chunks of the file are stored again
		return !slices.ContainsFunc(chunks, func(h link.Hash) bool {
			b, there, err := d.table.Get(h)
			return err != nil || !there || len(b.Places) == 0
		})
	})
	source.refuse.Store(nil)
	until(func() bool {
		counted, err := d.table.Counted()
		return err == nil && counted
	})
	for range 2 {
		d.syncFull()
	}
	check(t, d.committed(), want)
	sink.full.Store(false)
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}

// A file has names in other folders, as in a snapshot made by hard links, and is replaced
// under one of them by a file for which there is no room: that name has what it had.
func TestLeanCommitKeepsAReplacedName(t *testing.T) {
	for _, others := range []int{1, 2} {
		d, sink, _ := fullDevice(t, 1<<30)
		want := map[string]string{"now/": ""}
		d.putting(want)("now/a", random(1, 100_000))
		d.put("gone", random(2, 8<<20))
		a, now := must(d.tree.Find(ctx, "now/a")), must(d.tree.Find(ctx, "now"))
		for i := range others {
			folder := fmt.Sprint("day", i)
			day, _ := d.parent(folder + "/a")
			must(d.tree.Link(ctx, a.Ino, day, "a"))
			want[folder+"/"], want[folder+"/a"] = "", want["now/a"]
		}
		d.sync()
		d.fillUp(sink)
		d.put("now/new", random(3, 2<<20))
		if err := d.tree.Rename(ctx, now.Ino, "new", now.Ino, "a", 0); err != nil {
			t.Fatal(err)
		}
		d.remove("gone")
		d.syncFull()
		check(t, d.committed(), want)
		sink.room = 1 << 30
		d.sync()
		want["now/a"], want["waits"] = string(random(3, 2<<20)), string(random(99, 1500<<10))
		check(t, d.committed(), want)
		d.audit()
	}
}

// What is deleted in a folder of which a node cannot be read makes room, too, with one
// commit.
func TestDeletingInAnUnreadFolderMakesRoom(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{"x/": ""}
	first.put("x/f", random(1, 8<<20))
	for i := range 300 {
		first.putting(want)(fmt.Sprint("x/", i), random(uint64(i), 300))
	}
	first.sync()
	first.putting(want)("y", random(3, 1000)) // its pack has the newest commit
	first.sync()
	first.close()
	first.open(nil)
	source := &partly{Swarm: swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1}
	d.recover()
	d.listTree()
	d.counted()
	d.forgetMetadata(source)
	sink := &offered{swarm, 1 << 30}
	d.sink = sink
	d.open(nil)
	d.fillUp(sink)
	x, _ := d.parent("x/f")
	if err := d.tree.Unlink(ctx, x, "f"); err != nil {
		t.Fatal(err)
	}
	before := swarm.Head().Number
	d.syncFull()
	if n := swarm.Head().Number; n != before+1 {
		t.Fatalf("commit %d follows commit %d", n, before)
	}
	check(t, d.committed(), want)
	d.remove("waits")
	d.put("waits", random(98, 20<<20))
	d.syncFull()
	d.syncFull()
	if n := swarm.Head().Number; n != before+1 {
		t.Errorf("%d commits of the same", n-before-1)
	}
}
