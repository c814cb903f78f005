package writeback_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/disk"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// recovered is a new device of the drive, which begins with the newest commit and
// nothing else.
func recovered(t testing.TB, swarm *memswarm.Swarm) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, fs: &counting{FS: disk.Local}, number: 1}
	d.recover()
	return d
}

// recover opens a device with the newest commit and nothing else.
func (d *device) recover() {
	d.t.Helper()
	t, swarm := d.t, d.swarm
	d.open(func(st *state.Store) {
		table, head := blocks.New(st), swarm.Head()
		r := readthrough.New(table, nil, swarm, names)
		read := func(l commit.Locator) ([]byte, error) { return r.At(ctx, l) }
		signed := must(read(head.Commit))
		c := must(commit.Parse(signed))
		if err := errors.Join(tree.Adopt(st, must(c.RootRecord()), c.Files, c.Bytes), writeback.Adopt(st, table, head, signed, read)); err != nil {
			t.Fatal(err)
		}
	})
	t.Cleanup(func() { d.close() })
}

// After a recovery the index for duplicates comes back: files that are copied in
// again are found to be stored, and hardly anything is uploaded.
func TestDuplicatesAreFoundAfterRecovery(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	files := map[string][]byte{"large": random(1, 20<<20+5)}
	for i := range 50 {
		files[fmt.Sprint("small", i)] = random(uint64(10+i), 70_000)
	}
	copied := func(d *device, to string) int64 {
		before := swarm.Stored()
		for name, content := range files {
			d.put(to+"/"+name, content)
		}
		d.sync()
		return swarm.Stored() - before
	}
	first := copied(d, "first")
	bare := recovered(t, swarm)
	bare.counted()
	again := copied(bare, "again")
	t.Logf("%d bytes were stored first, %d again", first, again)
	if again > first/50 {
		t.Errorf("the same files took %d bytes first, and %d again after a recovery", first, again)
	}
	bare.audit()
}

// The names of a file with several are what they were after a recovery, whether its
// record was looked at or only its names: of its type, and counted.
func TestHardLinksAfterRecovery(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	d.put("d/a", []byte("content"))
	a, dir := must(d.tree.Find(ctx, "d/a")), must(d.tree.Find(ctx, "d"))
	must(d.tree.Link(ctx, a.Ino, dir.Ino, "b"))
	d.sync()
	bare := recovered(t, swarm)
	audit := func(when string) {
		if err := bare.tree.Audit(ctx, func(path, what string) { t.Errorf("%s: %s: %s", when, path, what) }, nil); err != nil {
			t.Error(err)
		}
	}
	if _, err := bare.tree.Find(ctx, "d/nothing"); !errors.Is(err, tree.ErrNotFound) {
		t.Fatal(err)
	}
	audit("by their names")
	if b := must(bare.tree.Find(ctx, "d/b")); b.Nlink != 2 {
		t.Errorf("%d links", b.Nlink)
	}
	audit("looked at")
}

// A directory is moved on a recovered device that has not read its entries, and the
// next commit has all of them at the new place.
func TestDirectoryIsMovedUnread(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	d.put("old/f", random(1, 70_000))
	d.put("old/below/g", []byte("g"))
	d.sync()
	bare := recovered(t, swarm)
	must(bare.tree.Lookup(ctx, tree.Root, "old"))
	down := func(yes bool) {
		for i := range 9 {
			swarm.Set(i, func(h *memswarm.Holder) { h.Down = yes })
		}
	}
	down(true)
	if err := bare.tree.Rename(ctx, tree.Root, "old", tree.Root, "new", 0); err != nil {
		t.Fatal("while nobody answers:", err)
	}
	down(false)
	bare.sync()
	bare.counted() // nothing is given up before, and counting rests while nobody answers
	want := map[string]string{"new/": "", "new/f": string(random(1, 70_000)), "new/below/": "", "new/below/g": "g"}
	check(t, bare.committed(), want)
	check(t, bare.listTree(), want)
	bare.audit()
}

// refusing has too few holders for one pack, the one with this number among those
// that are stored.
type refusing struct {
	*memswarm.Swarm
	at, seen atomic.Int64
}

func (r *refusing) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if r.seen.Add(1) == r.at.Load() {
		return group.SlotSet{}, writeback.ErrTooFew
	}
	return r.Swarm.Store(ctx, g, lease, manifest, shards)
}

// Whichever pack of a commit finds too few holders and goes to a new group: a
// device that is recovered knows all groups and packs that the commit rests on,
// those of the commit itself too, keeps them, and gives them up when they are
// needed no more.
func TestRecoveredDeviceKnowsAllPacks(t *testing.T) {
	for at := int64(0); ; at++ {
		swarm := memswarm.New(9, 4, 7)
		sink := &refusing{Swarm: swarm}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish}
		d.open(newDrive)
		d.put("first", random(1, 1<<20))
		d.sync()
		before := sink.seen.Load()
		sink.at.Store(before + at)
		d.put("dir/second", random(2, 5<<20))
		d.sync()
		d.close()
		bare := recovered(t, swarm)
		bare.counted()
		head := swarm.Head().Commit
		if _, ok, err := bare.table.Pack(head.Group, head.Number); !ok || err != nil {
			t.Errorf("pack %d refused: the pack of the commit is not in the account: %v", at, err)
		}
		bare.put("third", []byte("third"))
		bare.sync()
		bare.audit()
		if t.Failed() || sink.seen.Load() < before+at {
			t.Logf("%d packs were refused, one after the other", at)
			return
		}
	}
}

// What was folded shortly before the last device was lost lies in a new pack
// alone: the old one was given up when the commit was out. Who recovers from that
// commit must not take the old one for its home, and give up the new one.
func TestRecoveredAfterAFold(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{}
	for pack := range 2 {
		for i := range 5 {
			p := fmt.Sprintf("f%d-%d", pack, i)
			want[p] = string(random(uint64(10*pack+i), 700_000))
			d.put(p, []byte(want[p]))
		}
		d.sync()
	}
	for pack := range 2 {
		for i := range 3 {
			p := fmt.Sprintf("f%d-%d", pack, i)
			delete(want, p)
			if err := d.tree.Unlink(ctx, tree.Root, p); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := swarm.Packs()
	for i := range 2 { // the first finds the packs mostly dead, the second folds them
		want["tick"] = fmt.Sprint(i)
		d.put("tick", []byte(want["tick"]))
		d.sync()
	}
	gone := 0
	for _, p := range before {
		there := func(q group.PackRef) bool { return q.Group == p.Group && q.Number == p.Number }
		if !slices.ContainsFunc(swarm.Packs(), there) {
			gone++
		}
	}
	if gone < 2 {
		t.Fatalf("%d packs were folded", gone)
	}

	r := recovered(t, swarm)
	r.counted()
	r.sync() // nothing changed, but something may be given up
	for i := range 3 {
		want["tick"] = fmt.Sprint("again", i)
		r.put("tick", []byte(want["tick"]))
		r.sync()
	}
	check(t, r.committed(), want)
	r.audit()
}

// Who brings back a file whose content the holders have lost gets it stored again,
// though the drive knows the content.
func TestLostContentIsStoredAgain(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	var lost atomic.Bool
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	d.gone = func(id group.ID, n uint16) bool {
		g, _, err := d.table.Group(id)
		return err == nil && g.Kind == group.Content && lost.Load() && n == 0
	}
	d.open(newDrive)
	t.Cleanup(d.close)
	content := random(1, 3<<20)
	d.put("f", content)
	d.sync()
	for i := range 9 {
		swarm.Wipe(i)
	}
	lost.Store(true)
	d.put("f", content)
	d.sync()
	st := must(d.tree.ContentState(ctx, must(d.tree.Find(ctx, "f")).Ino))
	err := d.reader.Held(ctx, dag.File{Root: st.Content, Size: st.Size}, 0, 3, func(g group.Group, pk blocks.Pack) error {
		if d.gone(g.ID, pk.Number) {
			return errors.New("it is in the pack that is lost")
		}
		return nil
	})
	if st.Dirty || err != nil {
		t.Error(err)
	}
}

// The device before gave up a pack that its newest commit did not need any more. Who
// recovered from that commit and writes the same content stores it again, though the
// index of that commit still names it and references are not counted yet. What
// holders said that they have is not stored twice.
func TestWhatMayBeGivenUpIsStoredAgain(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"quiet/": ""}
	put := d.putting(want)
	put("quiet/f", random(1, 1<<20))
	d.sync()
	quiet := swarm.Head().Commit // the directory is in a pack of metadata before it
	gone := random(2, 1<<20)
	d.put("gone", gone)
	d.sync()
	if err := d.tree.Unlink(ctx, tree.Root, "gone"); err != nil {
		t.Fatal(err)
	}
	full, _ := swarm.Bytes()
	d.sync()
	if left, _ := swarm.Bytes(); left > full-1<<20 {
		t.Fatalf("%d of %d bytes were given up", full-left, full)
	}

	source := &partly{Swarm: swarm}
	refuse := func(ref group.PackRef) bool { return ref.Group == quiet.Group && ref.Number < quiet.Number }
	source.refuse.Store(&refuse)
	r := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source, number: 1}
	r.recover()
	for end := time.Now().Add(time.Minute); r.engine.Progress().IndexUnread == ""; r.sync() {
		if time.Now().After(end) {
			t.Fatal("counting references does not end at what cannot be read")
		}
	}
	stores := func(name string, content []byte) bool {
		before := swarm.Stored()
		r.putting(want)(name, content)
		r.sync()
		if counted, err := r.table.Counted(); err != nil || counted {
			t.Fatalf("counted %v: %v", counted, err)
		}
		return swarm.Stored() > before+int64(len(content))
	}
	if !stores("back", gone) {
		t.Error("what was given up was not stored again")
	}
	if stores("own", gone) {
		t.Error("what this device made itself was stored twice")
	}
	err := r.table.Packs(func(p blocks.Pack) bool {
		g, _, err := r.table.Group(p.Group)
		if err != nil || g.Founder == group.PeerKey(r.key().Public().(ed25519.PublicKey)) {
			return err == nil
		}
		err = r.table.UpdatePack(p.Group, p.Number, func(p *blocks.Pack) {
			for i := range g.Coding.K {
				p.Acked.Add(int(i))
			}
		})
		return err == nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if stores("copy", []byte(want["quiet/f"])) {
		t.Error("what holders said that they have was stored again")
	}
	check(t, r.committed(), want)
}
