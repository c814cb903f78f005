package writeback_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// What was deleted and cannot be read now keeps what it refers to until it can;
// everything else is given back meanwhile, and commits go on.
func TestUnreadableDirectoryHoldsNothingElseBack(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	source := &partly{Swarm: swarm}
	var later atomic.Int64 // by how much the clock is ahead
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, source: source,
		now: func() time.Time { return time.Now().Add(time.Duration(later.Load())) }}
	d.open(newDrive)
	t.Cleanup(d.close)
	fill := func(dir string, seed uint64) {
		for i := range uint64(10) {
			d.put(fmt.Sprintf("%s/f%d", dir, i), random(seed+i, 1<<20))
		}
		d.sync()
	}
	fill("unreadable", 0)
	unreadable := swarm.Head().Commit // its directory is in a pack of metadata up to this one
	fill("other", 100)
	full, _ := swarm.Bytes()
	d.close() // what it has in memory is gone
	for n := range unreadable.Number + 1 {
		if err := must(packfiles.Open(filepath.Join(d.dir, "packs"))).Remove(unreadable.Group, n); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(ref group.PackRef) bool {
		return ref.Group == unreadable.Group && ref.Number <= unreadable.Number
	}
	source.refuse.Store(&refuse)
	d.open(nil)
	for _, dir := range []string{"unreadable", "other"} {
		ino, _ := d.parent(dir + "/x")
		for i := range 10 {
			if err := d.tree.Unlink(ctx, ino, fmt.Sprintf("f%d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := d.tree.Rmdir(ctx, tree.Root, dir); err != nil {
			t.Fatal(err)
		}
	}
	ticks := func() {
		for i := range 3 {
			d.put("tick", []byte{byte(i)})
			d.sync()
		}
	}
	ticks()
	if left, _ := swarm.Bytes(); left > full*6/10 || left < full*4/10 {
		t.Errorf("%d of %d bytes are there, though half of them could be given back", left, full)
	}
	never := func(group.PackRef) bool { return false }
	source.refuse.Store(&never)
	later.Store(int64(time.Hour))
	ticks()
	if left, _ := swarm.Bytes(); left > full/8 {
		t.Errorf("%d of %d bytes are still there", left, full)
	}
	check(t, d.committed(), map[string]string{"tick": "\x02"})
}

// Nodes of the table of linked inodes that cannot be read keep back what they may have,
// and nothing else; when they can, all follows.
func TestUnreadableTableOfLinks(t *testing.T) {
	d, source := partlyDevice(t)
	want := map[string]string{"a/": "", "b/": ""}
	put := d.putting(want)
	link := func(from, to string) {
		t.Helper()
		dir, name := d.parent(to)
		if _, err := d.tree.Link(ctx, must(d.tree.Find(ctx, from)).Ino, dir, name); err != nil {
			t.Fatal(err)
		}
		want[to] = want[from]
	}
	for i := range 1000 { // in more nodes than one
		put(fmt.Sprintf("a/%d", i), fmt.Appendf(nil, "file %d", i))
		link(fmt.Sprintf("a/%d", i), fmt.Sprintf("b/%d", i))
	}
	d.sync()
	old := map[group.ID]uint16{} // of metadata, up to which number
	for _, g := range must(d.table.Groups()) {
		if g.Kind == group.Metadata {
			old[g.ID] = g.Packs
		}
	}
	put("a/5", []byte("which has new nodes"))
	want["b/5"] = want["a/5"]
	d.sync()
	d.close() // what it has in memory is gone
	for id, packs := range old {
		for n := range packs {
			if err := must(packfiles.Open(filepath.Join(d.dir, "packs"))).Remove(id, n); err != nil {
				t.Fatal(err)
			}
		}
	}
	refuse := func(ref group.PackRef) bool { return ref.Number < old[ref.Group] }
	source.refuse.Store(&refuse)
	d.open(nil)
	before := maps.Clone(want)
	put("a/5", []byte("changed"))
	put("a/6", []byte("changed, too"))
	link("a/7", "third")
	want["b/5"], want["b/6"] = want["a/5"], want["a/6"]
	put("plain", []byte("plain"))
	put("new", []byte("new"))
	link("new", "new, too")
	dir, _ := d.parent("b/x")
	if err := d.tree.Unlink(ctx, dir, "8"); err != nil {
		t.Fatal(err)
	}
	delete(want, "b/8")
	for range 2 {
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) || len(unread.Paths) != 4 || !errors.Is(err, readerr.ErrUnreachable) {
			t.Fatalf("sync: %v", err)
		}
	}
	delete(before, "b/8")
	before["plain"], before["a/5"], before["b/5"] = "plain", "changed", "changed"
	check(t, d.committed(), before)
	never := func(group.PackRef) bool { return false }
	source.refuse.Store(&never)
	for range 3 {
		_ = d.engine.Sync(ctx)
	}
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}

// A file that changed in part, and of which what is not here cannot be read, keeps
// nothing else from being committed, and follows when it can.
func TestUnreadableFileHoldsNothingElseBack(t *testing.T) {
	d, source := partlyDevice(t)
	want := random(1, 3<<20)
	d.put("f", want)
	d.sync()
	ino, _ := d.parent("f/x")
	if n, err := d.tree.Evict(ctx, ino, false); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	d.close() // what it has in memory is gone
	refuse := func(ref group.PackRef) bool { return true }
	source.refuse.Store(&refuse)
	d.open(nil)
	f, err := d.tree.Open(ctx, ino, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if _, err := f.WriteAt(ctx, []byte("edit"), 1<<20, false); err != nil {
		t.Fatal(err)
	}
	d.put("other", []byte("something else"))
	d.put("new", random(2, 100_000))
	var unread *writeback.UnreadError
	err = d.engine.Sync(ctx)
	if !errors.As(err, &unread) || !slices.Equal(unread.Paths, []string{"/f"}) || !errors.Is(err, readerr.ErrUnreachable) {
		t.Fatalf("sync: %v", err)
	}
	if p := d.engine.Progress(); p.LastError != "" || !slices.Equal(p.Unread, unread.Paths) {
		t.Errorf("the drive says %q, %q", p.LastError, p.Unread)
	}
	check(t, d.committed(), map[string]string{"f": string(want), "other": "something else", "new": string(random(2, 100_000))})
	never := func(group.PackRef) bool { return false }
	source.refuse.Store(&never)
	d.sync()
	copy(want[1<<20:], "edit")
	check(t, d.committed(), map[string]string{"f": string(want), "other": "something else", "new": string(random(2, 100_000))})
	if p := d.engine.Progress(); len(p.Unread) > 0 {
		t.Errorf("the drive goes on saying %q", p.Unread)
	}
}

// Files of which parts cannot be read cost a commit no more than the time of few such
// reads, however many they are; each is tried in its turn, and all are taken as soon
// as they can be read.
func TestUnreadableFilesCostLittle(t *testing.T) {
	const files = 20
	d, source := partlyDevice(t)
	want := map[string]string{}
	put := d.putting(want)
	for i := range files {
		put(fmt.Sprint("f", i), random(uint64(i), 2<<20))
	}
	d.sync()
	for i := range files {
		if n, err := d.tree.Evict(ctx, must(d.tree.Find(ctx, fmt.Sprint("f", i))).Ino, false); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	d.close() // what it has in memory is gone
	var reads atomic.Int64
	tried := sync.Map{}
	refuse := func(ref group.PackRef) bool {
		reads.Add(1)
		tried.Store(fmt.Sprint(ref.Group, ref.Number), true)
		return true
	}
	source.refuse.Store(&refuse)
	d.open(nil)
	for i := range files {
		d.edit(fmt.Sprint("f", i), []byte("edit"), 1<<20)
		name := fmt.Sprint("f", i)
		want[name] = want[name][:1<<20] + "edit" + want[name][1<<20+4:]
	}
	for i := range 2*files/3 + 2 {
		before := reads.Load()
		var unread *writeback.UnreadError
		if err := d.engine.Sync(ctx); !errors.As(err, &unread) || len(unread.Paths) != files || !errors.Is(err, readerr.ErrUnreachable) {
			t.Fatalf("sync: %v", err)
		}
		n, most := reads.Load()-before, int64(3*2) // a read asks for a block some times
		if i == 0 {
			most = int64(3 * (2 + 2*runtime.GOMAXPROCS(0))) // so many at the same time
		}
		if n == 0 || n > most {
			t.Errorf("commit %d: %d reads of %d files that cannot be read", i, n, files)
		}
	}
	packs := 0
	tried.Range(func(any, any) bool { packs++; return true })
	if want := files * 2 / 4; packs < want {
		t.Errorf("packs tried: %d, of %d at least", packs, want)
	}
	source.refuse.Store(nil)
	d.sync()
	check(t, d.committed(), want)
}
