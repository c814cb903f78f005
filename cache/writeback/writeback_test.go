package writeback_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/cache/backing"
	"skep/cache/blocks"
	"skep/cache/disk"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/test/memswarm"
)

var ctx = context.Background()

var rootKey, names, read, convergence = secret.Key{1}, secret.Key{2}, secret.Key{3}, secret.Key{4}

// device is a drive on one device, over a swarm in memory.
type device struct {
	t      testing.TB
	dir    string
	swarm  *memswarm.Swarm
	st     *state.Store
	tree   *tree.Tree
	table  *blocks.Table
	reader *readthrough.Reader
	packs  *packfiles.Store
	engine *writeback.Engine
	stop   func()
	// Where packs and heads go to and come from; the swarm, unless a test puts
	// something between.
	sink    writeback.Sink
	publish writeback.Publisher
	source  readthrough.Source
	fs      disk.FS                    // of the backing files
	packFS  disk.FS                    // of the packs that are kept
	now     func() time.Time           // nil: time.Now
	lost    bool                       // the index was, before it was opened
	pass    bool                       // the kernel may be given backing files
	class   erasure.Class              // of content; 0: 4 MiB
	alone   func(since time.Time) bool // nil: nobody else publishes
	gone    func(id group.ID, n uint16) bool
	only    func() map[group.ID]group.Bitmap
	said    func(p blocks.Pack) int
	live    func(g group.Group, p blocks.Pack) int
	there   func(g group.Group) int
	weak    func(erasure.Class, group.Kind, erasure.Coding) bool // nil: the swarm's
	number  uint32                                               // of the device among those of the drive; 0 is the first
	timing  writeback.Timing                                     // zero: no commit comes by itself
}

func newDevice(t testing.TB, swarm *memswarm.Swarm) *device {
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d
}

// newDrive prepares the tables of a drive of which nothing is stored yet.
func newDrive(st *state.Store) {
	var b state.Batch
	blocks.SetCounted(&b)
	_, _ = st.Apply(&b)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// openState opens tables. In short runs their parts are small: the race detector takes
// note of all memory that is made.
func openState(dir string) *state.Store {
	var opt state.Options
	if testing.Short() {
		opt.OverlaySize = 1 << 20
	}
	return must(state.OpenWith(dir, opt))
}

func (d *device) open(prepare func(*state.Store)) {
	d.t.Helper()
	if d.sink == nil {
		d.sink, d.publish = d.swarm, d.swarm.Publish
	}
	if d.source == nil {
		d.source = d.swarm
	}
	if d.fs == nil {
		d.fs = disk.Local
	}
	d.st = openState(filepath.Join(d.dir, "state"))
	if prepare != nil {
		prepare(d.st)
	}
	if d.packFS == nil {
		d.packFS = disk.Local
	}
	d.packs = must(packfiles.OpenOn(d.packFS, filepath.Join(d.dir, "packs")))
	d.table = blocks.New(d.st)
	d.reader = readthrough.New(d.table, d.packs, d.source, names)
	if d.lost = d.st.Rebuilt(); d.lost {
		if err := writeback.Restore(ctx, d.st, d.table, d.reader); err != nil {
			d.t.Fatal(err)
		}
	}
	d.tree = must(tree.Open(tree.Options{State: d.st, Backing: must(backing.OpenOn(d.fs, filepath.Join(d.dir, "files"))), Content: d.reader, Device: d.number + 1,
		Passthrough: d.pass}))
	class := d.class
	if class == 0 {
		class = 22
	}
	now := time.Now
	if d.now != nil {
		now = d.now
	}
	if d.weak == nil {
		d.weak = d.swarm.Weak
	}
	timing := d.timing
	if timing == (writeback.Timing{}) {
		timing = writeback.Timing{Quiet: time.Hour, Most: time.Hour, Retry: time.Hour}
	}
	d.engine = must(writeback.New(writeback.Config{
		State: d.st, Tree: d.tree, Table: d.table, Reader: d.reader, Packs: d.packs, Sink: d.sink, Publish: d.publish,
		Drive: [16]byte{9}, Epoch: 1, Device: d.key(), Root: rootKey, Names: names, Read: read, Convergence: convergence,
		ContentClass: class, Alone: d.alone, Lost: d.gone, OnlyHere: d.only, Said: d.said, Weak: d.weak, Live: d.live, There: d.there, JournalMax: 40 << 20, Timing: timing,
		Now: now, Log: slog.New(slog.DiscardHandler),
	}))
	run, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); _ = d.engine.Run(run) }()
	d.stop = func() { cancel(); <-done }
}

// key is the device's own.
func (d *device) key() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(d.number)))
}

func (d *device) close() {
	d.stop()
	_ = d.st.Close()
}

func (d *device) sync() {
	d.t.Helper()
	if err := d.engine.Sync(ctx); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) put(path string, content []byte) {
	d.t.Helper()
	dir, name := d.parent(path)
	var f *tree.File
	a, err := d.tree.Lookup(ctx, dir, name)
	if err == nil {
		f, err = d.tree.Open(ctx, a.Ino, os.O_RDWR|os.O_TRUNC)
	} else {
		f, _, err = d.tree.Create(ctx, dir, name, 0o644, os.O_RDWR, tree.Owner{})
	}
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Release()
	if _, err := f.WriteAt(ctx, content, 0, false); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) parent(path string) (tree.Ino, string) {
	d.t.Helper()
	dir := tree.Root
	parts := strings.Split(path, "/")
	for _, p := range parts[:len(parts)-1] {
		a, err := d.tree.Lookup(ctx, dir, p)
		if err != nil {
			if a, err = d.tree.Mkdir(ctx, dir, p, 0o755, tree.Owner{}); err != nil {
				d.t.Fatal(err)
			}
		}
		dir = a.Ino
	}
	return dir, parts[len(parts)-1]
}

// committed reads the newest commit as a stranger with the keys would: from the
// head, through the swarm alone.
func (d *device) committed() map[string]string {
	d.t.Helper()
	return listCommit(d.t, d.swarm)
}

func listCommit(t testing.TB, swarm *memswarm.Swarm) map[string]string {
	t.Helper()
	return listHead(t, swarm, swarm.Head())
}

// listHead is listCommit for the commit of a head.
func listHead(t testing.TB, swarm *memswarm.Swarm, head commit.Head) map[string]string {
	t.Helper()
	st := openState(t.TempDir())
	defer st.Close()
	table := blocks.New(st)
	r := readthrough.New(table, nil, swarm, names)
	plain, err := r.At(ctx, head.Commit)
	if err != nil {
		t.Fatal(err)
	}
	c, err := commit.Parse(plain)
	if err != nil {
		t.Fatal(err)
	}
	r.SetCommit(&c, head.Commit)
	for _, l := range c.Groups {
		groups, err := commit.DecodeGroups(must(r.At(ctx, l.In(head.Commit))))
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range groups {
			if err := table.PutGroup(g); err != nil {
				t.Fatal(err)
			}
		}
	}
	out := map[string]string{}
	root := must(c.RootRecord())
	listDir(t, r, root.Content, "", out)
	return out
}

func listDir(t testing.TB, r *readthrough.Reader, root link.Link, path string, out map[string]string) {
	t.Helper()
	if root.IsZero() {
		return
	}
	type sub struct {
		l    link.Link
		path string
	}
	var subs []sub
	err := r.Dir(ctx, root, func(name string, rec dag.Inode) error {
		if rec.Linked {
			var err error
			if rec, err = r.Linked(ctx, rec.ID); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		p := path + name
		switch {
		case rec.Mode&0o170000 == 0o040000:
			out[p+"/"] = ""
			subs = append(subs, sub{rec.Content, p + "/"})
		case rec.Content.IsZero():
			out[p] = string(rec.Inline)
		default:
			var b []byte
			for i := range rec.File().Chunks() {
				b = append(b, must(r.ReadChunk(ctx, rec.File(), i))...)
			}
			out[p] = string(b)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subs {
		listDir(t, r, s.l, s.path, out)
	}
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

func check(t testing.TB, got, want map[string]string) {
	t.Helper()
	for p, w := range want {
		if g, ok := got[p]; !ok || g != w {
			t.Errorf("%s: there %v, %d bytes, want %d", p, ok, len(g), len(w))
		}
	}
	for p := range got {
		if _, ok := want[p]; !ok {
			t.Errorf("%s should not be there", p)
		}
	}
}

func TestWhatIsSyncedCanBeReadFromTheSwarmAlone(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"dir/": "", "dir/deep/": ""}
	for i, n := range []int{0, 1, 512, 513, 16 << 10, 16<<10 + 1, 1 << 20, 1<<20 + 1, 5<<20 + 77} {
		p := fmt.Sprintf("dir/deep/file%d", i)
		b := random(uint64(i), n)
		d.put(p, b)
		want[p] = string(b)
	}
	for i := range 700 {
		p := fmt.Sprintf("dir/n%03d", i)
		d.put(p, []byte(p))
		want[p] = p
	}
	d.sync()
	check(t, d.committed(), want)

	// An edit, a deletion, a rename, a hard link, an emptied directory.
	edited := []byte(want["dir/deep/file8"])
	copy(edited[2<<20:], "edited")
	a := must(d.tree.Find(ctx, "dir/deep/file8"))
	f := must(d.tree.Open(ctx, a.Ino, os.O_RDWR))
	if _, err := f.WriteAt(ctx, []byte("edited"), 2<<20, false); err != nil {
		t.Fatal(err)
	}
	f.Release()
	want["dir/deep/file8"] = string(edited)
	dir, _ := d.parent("dir/x")
	deep, _ := d.parent("dir/deep/x")
	if err := d.tree.Unlink(ctx, dir, "n005"); err != nil {
		t.Fatal(err)
	}
	delete(want, "dir/n005")
	if err := d.tree.Rename(ctx, dir, "n006", deep, "moved", 0); err != nil {
		t.Fatal(err)
	}
	want["dir/deep/moved"] = want["dir/n006"]
	delete(want, "dir/n006")
	if _, err := d.tree.Link(ctx, a.Ino, tree.Root, "hard"); err != nil {
		t.Fatal(err)
	}
	want["hard"] = want["dir/deep/file8"]
	d.put("gone/x", nil)
	gone, _ := d.parent("gone/x")
	if err := d.tree.Unlink(ctx, gone, "x"); err != nil {
		t.Fatal(err)
	}
	want["gone/"] = ""
	before, _ := swarm.Bytes()
	d.sync()
	after, _ := swarm.Bytes()
	if after-before > 6<<20 {
		t.Errorf("a small edit stored %d bytes", after-before)
	}
	check(t, d.committed(), want)

	// Nothing changed: nothing is stored.
	d.sync()
	if again, _ := swarm.Bytes(); again != after {
		t.Errorf("an idle sync stored %d bytes", again-after)
	}
	for _, s := range []string{"file8", "n005", "moved", "edited"} {
		if swarm.Contains([]byte(s)) {
			t.Errorf("%q is readable at a holder", s)
		}
	}
}

func TestDeletedFilesLeaveTheHolders(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	for i := range 20 {
		d.put(fmt.Sprintf("big/f%d", i), random(uint64(i), 1<<20))
	}
	d.put("keep", random(99, 100_000))
	d.sync()
	full, _ := swarm.Bytes()
	dir, _ := d.parent("big/x")
	for i := range 20 {
		if err := d.tree.Unlink(ctx, dir, fmt.Sprintf("f%d", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 3 { // what is mostly dead is folded by the next commits
		d.put("tick", []byte{byte(i)})
		d.sync()
	}
	left, _ := swarm.Bytes()
	if left > full/8 {
		t.Errorf("%d of %d bytes are still there", left, full)
	}
	check(t, d.committed(), map[string]string{"big/": "", "keep": string(random(99, 100_000)), "tick": "\x02"})
}

func TestDuplicatesAreStoredOnce(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	content := random(1, 3<<20)
	d.put("a", content)
	d.sync()
	one, _ := swarm.Bytes()
	for i := range 10 {
		d.put(fmt.Sprintf("copy%d", i), content)
	}
	d.sync()
	if two, _ := swarm.Bytes(); two-one > 1<<20 {
		t.Errorf("ten copies took %d bytes", two-one)
	}
}

// A commit that failed halfway is tried again, and does not store again what
// the holders had.
func TestBrokenCommitGoesOn(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	content := random(1, 20<<20)
	d.put("big", content)
	for i := range 5 {
		swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	if err := d.engine.Sync(ctx); err == nil {
		t.Fatal("synced to too few holders")
	}
	for i := range 5 {
		swarm.Set(i, func(h *memswarm.Holder) { h.Down = false })
	}
	d.close()
	d.open(nil)
	d.sync()
	check(t, d.committed(), map[string]string{"big": string(content)})
	if n, _ := swarm.Bytes(); n > 50<<20 {
		t.Errorf("%d bytes stored", n)
	}
}

// Shards of a pack that too few holders took are in no account, but on disks.
func TestWhatAFailedCommitLeftIsDeleted(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	d.put("first", random(1, 3<<20))
	d.sync()
	down := func(is bool) {
		for i := range 3 {
			swarm.Set(i, func(h *memswarm.Holder) { h.Down = is })
		}
	}
	d.close()
	d.open(nil) // what a run did not settle it does not judge
	before, _ := swarm.Bytes()
	down(true)
	d.put("second", random(2, 3<<20))
	if err := d.engine.Sync(ctx); err == nil {
		t.Fatal("synced to too few holders")
	}
	if left, _ := swarm.Bytes(); left == before {
		t.Fatal("the failed commit left nothing")
	}
	d.close()
	down(false)
	d.open(nil)
	d.sync()
	for _, name := range []string{"first", "second"} {
		if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
			t.Fatal(err)
		}
	}
	d.sync()
	if left, _ := swarm.Bytes(); left > 2<<20 {
		t.Errorf("%d bytes are left of a drive that is empty", left)
	}
}

func TestManySmallCommitsStayCompact(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{}
	for i := range 60 {
		p := fmt.Sprintf("f%d", i%10)
		b := random(uint64(i), 2000)
		d.put(p, b)
		want[p] = string(b)
		d.sync()
	}
	check(t, d.committed(), want)
	n, shards := swarm.Bytes()
	t.Logf("%d bytes in %d shards for %d bytes", n, shards, 10*2000)
	if n > 24<<20 {
		t.Errorf("%d bytes are held for %d", n, 10*2000)
	}
}

// listTree reads everything through the tree, as programs do.
func (d *device) listTree() map[string]string {
	d.t.Helper()
	out := map[string]string{}
	d.listBelow(tree.Root, "", out)
	return out
}

func (d *device) listBelow(dir tree.Ino, path string, out map[string]string) {
	d.t.Helper()
	var entries []tree.DirEntry
	if err := d.tree.ReadDir(ctx, dir, 0, func(e tree.DirEntry) bool { entries = append(entries, e); return true }); err != nil {
		d.t.Fatal(err)
	}
	for _, e := range entries {
		if e.Attr.Mode&0o170000 == 0o040000 {
			out[path+e.Name+"/"] = ""
			d.listBelow(e.Attr.Ino, path+e.Name+"/", out)
			continue
		}
		f, err := d.tree.Open(ctx, e.Attr.Ino, os.O_RDONLY)
		if err != nil {
			d.t.Fatal(err)
		}
		b := make([]byte, e.Attr.Size)
		if n, err := f.ReadAt(ctx, b, 0); err != nil || n != len(b) {
			d.t.Fatalf("%s%s: %d of %d bytes: %v", path, e.Name, n, len(b), err)
		}
		f.Release()
		out[path+e.Name] = string(b)
	}
}

func TestContentIsFetchedBack(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := random(5, 4<<20+3)
	d.put("dir/f", want)
	d.sync()
	a := must(d.tree.Find(ctx, "dir/f"))
	cs := must(d.tree.ContentState(ctx, a.Ino))
	if cs.Dirty || cs.Content.IsZero() {
		t.Fatalf("after sync: %+v", cs)
	}
	var got []byte
	f := dag.File{Root: cs.Content, Size: cs.Size}
	for i := range f.Chunks() {
		got = append(got, must(d.reader.ReadChunk(ctx, f, i))...)
	}
	if !bytes.Equal(got, want) {
		t.Error("came back different")
	}
}
