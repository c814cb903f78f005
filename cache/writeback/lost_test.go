package writeback_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// putting returns what writes files as put does, and notes in want what they
// must contain.
func (d *device) putting(want map[string]string) func(path string, content []byte) {
	return func(path string, content []byte) {
		d.put(path, content)
		want[path] = string(content)
	}
}

// The device goes on after its index was lost: from the newest commit and the
// journal, without any peer for what it wrote itself.
func TestLostIndex(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"dir/": "", "dir/sub/": "", "new/": ""}
	put := d.putting(want)
	for i := range 300 {
		put(fmt.Sprintf("dir/sub/f%d", i), random(uint64(i), 3000))
	}
	put("dir/large", random(1000, 2<<20))
	d.sync()
	put("dir/sub/f7", []byte("changed after the commit"))
	put("new/file", random(1001, 50_000))
	put("dir/sub/added", []byte("x"))
	sub, _ := d.parent("dir/sub/x")
	if err := d.tree.Unlink(ctx, sub, "f9"); err != nil {
		t.Fatal(err)
	}
	delete(want, "dir/sub/f9")
	if err := d.tree.Rename(ctx, sub, "f10", tree.Root, "renamed", 0); err != nil {
		t.Fatal(err)
	}
	want["renamed"] = want["dir/sub/f10"]
	delete(want, "dir/sub/f10")
	d.forgetJournal()
	d.close()
	if err := os.RemoveAll(filepath.Join(d.dir, "state", "index")); err != nil {
		t.Fatal(err)
	}
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	check(t, d.listTree(), want)
	d.sync()
	check(t, d.committed(), want)
	d.put("dir/after", []byte("y"))
	want["dir/after"] = "y"
	d.sync()
	check(t, d.committed(), want)
}

// loseIndex ends a device and throws its index away.
func (d *device) loseIndex() {
	d.t.Helper()
	d.close()
	if err := os.RemoveAll(filepath.Join(d.dir, "state", "index")); err != nil {
		d.t.Fatal(err)
	}
}

// counted waits until all references are counted.
func (d *device) counted() {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; d.sync() {
		done, err := d.table.Counted()
		if err != nil {
			d.t.Fatal(err)
		}
		if done {
			return
		}
		if time.Now().After(end) {
			d.t.Fatal("references are not counted after a minute")
		}
	}
}

// A lost index stays known as lost until all is back, whatever comes between;
// then it is as it was.
func TestLostIndexOverMoreCrashes(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"dir/": ""}
	put := d.putting(want)
	for i := range 40 {
		put(fmt.Sprintf("dir/f%d", i), random(uint64(i), 20_000))
	}
	put("large", random(99, 3<<20))
	d.sync()
	put("dir/f3", []byte("changed"))
	d.forgetJournal()
	d.loseIndex()

	// The way back breaks off: nothing can be read that it needs.
	st := must(state.Open(filepath.Join(d.dir, "state")))
	table := blocks.New(st)
	none := must(packfiles.Open(t.TempDir()))
	if err := writeback.Restore(ctx, st, table, readthrough.New(table, none, nil, names)); err == nil {
		t.Fatal("restored from nothing")
	}
	if err := st.Close(); err != nil {
		t.Fatal(err)
	}

	for round := range 3 {
		if round > 0 {
			put(fmt.Sprintf("dir/new%d", round), random(uint64(100+round), 30_000))
			if round == 2 {
				d.sync()
			}
			d.loseIndex()
		}
		d.open(nil)
		if !d.lost {
			t.Fatalf("round %d: the index counts as whole", round)
		}
		check(t, d.listTree(), want)
	}
	d.counted()
	d.sync()
	check(t, d.committed(), want)
	d.audit()
	d.close()
	if d.open(nil); d.lost {
		t.Error("the index counts as lost although all is back")
	}
}

// What is known only by the index is found again after its loss: a file that is
// there under another name is not stored a second time, nor is one that was only
// touched.
func TestDuplicatesAreFoundAfterALoss(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	content := random(1, 6<<20)
	d.put("a", content)
	d.sync()
	d.forgetJournal()
	d.loseIndex()
	d.open(nil)
	d.counted()
	before, _ := swarm.Bytes()
	d.put("b", content)
	d.put("a", content)
	d.sync()
	if after, _ := swarm.Bytes(); after-before > 1<<20 {
		t.Errorf("%d bytes were stored that were there", after-before)
	}
	check(t, d.committed(), map[string]string{"a": string(content), "b": string(content)})
	d.audit()
}

// partly is a source that refuses to read some packs.
type partly struct {
	*memswarm.Swarm
	refuse atomic.Pointer[func(group.PackRef) bool]
}

func (p *partly) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	if f := p.refuse.Load(); f != nil && (*f)(ref) {
		return nil, fmt.Errorf("pack %d: %w", ref.Number, readerr.ErrUnreachable)
	}
	return p.Swarm.ReadRange(ctx, ref, off, n)
}

func (p *partly) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	if f := p.refuse.Load(); f != nil && (*f)(ref) {
		return nil, false, fmt.Errorf("pack %d: %w", ref.Number, readerr.ErrUnreachable)
	}
	return p.Swarm.ReadKnown(ctx, ref, off, n, room, fits)
}

// As long as not all references are counted, nothing is given up on their word.
func TestNothingIsGivenUpBeforeAllIsCounted(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	source := &partly{Swarm: swarm}
	d.source = source
	d.open(newDrive)
	t.Cleanup(d.close)
	d.put("quiet/f", random(1, 2<<20))
	d.sync()
	quiet := swarm.Head().Commit // the quiet directory is in a pack of metadata before it
	d.put("busy/f", random(2, 2<<20))
	d.sync()
	d.forgetJournal()
	d.loseIndex()
	for n := range quiet.Number {
		if err := must(packfiles.Open(filepath.Join(d.dir, "packs"))).Remove(quiet.Group, n); err != nil {
			t.Fatal(err)
		}
	}
	refuse := func(ref group.PackRef) bool { return ref.Group == quiet.Group && ref.Number < quiet.Number }
	source.refuse.Store(&refuse)
	for range 2 {
		d.open(nil)
		busy, _ := d.parent("busy/f")
		_ = d.tree.Unlink(ctx, busy, "f")
		before, _ := swarm.Bytes()
		d.sync()
		d.put("other", random(3, 1000))
		d.sync()
		if after, _ := swarm.Bytes(); after < before {
			t.Fatalf("%d bytes became %d though nobody knew what is needed", before, after)
		}
		if counted, err := d.table.Counted(); err != nil || counted {
			t.Fatalf("counted %v without reading it: %v", counted, err)
		}
		d.close()
	}
	source.refuse.Store(nil)
	before, _ := swarm.Bytes()
	d.open(nil)
	d.counted()
	var after int64
	for i := range 20 { // what is given up goes step by step, with the commits
		d.put("other", random(uint64(4+i), 1000))
		d.sync()
		if after, _ = swarm.Bytes(); after <= before-3<<20 {
			break
		}
	}
	if after > before-3<<20 {
		t.Errorf("%d bytes became %d when all was counted", before, after)
	}
	d.put("other", random(4, 1000))
	d.sync()
	check(t, d.committed(), map[string]string{"quiet/": "", "quiet/f": string(random(1, 2<<20)), "busy/": "", "other": string(random(4, 1000))})
	d.audit()
}

// forgetJournal fills the journal, and drops what the newest commit has made
// dispensable.
func (d *device) forgetJournal() {
	d.t.Helper()
	d.fillJournal()
	first, _, err := d.tree.Carry(func(piece func() error) error { return piece() })
	if err != nil {
		d.t.Fatal(err)
	}
	if err := d.table.Carry(); err != nil {
		d.t.Fatal(err)
	}
	if err := d.st.Forget(first); err != nil {
		d.t.Fatal(err)
	}
}

// fillJournal adds some segments to the journal.
func (d *device) fillJournal() {
	d.t.Helper()
	var b state.Batch
	b.Put([]byte("qfill"), make([]byte, 8<<20))
	for range 6 {
		if _, err := d.st.Apply(&b); err != nil {
			d.t.Fatal(err)
		}
	}
	b.Reset()
	b.Delete([]byte("qfill"))
	if _, err := d.st.Apply(&b); err != nil {
		d.t.Fatal(err)
	}
}

// saveAtimes writes the rows of what was read.
func (d *device) saveAtimes() {
	d.t.Helper()
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := d.tree.Run(ended); err != nil {
		d.t.Fatal(err)
	}
}

// What was changed a little, long after its content was last written, is whole
// again after the index is lost: the journal says only what changed.
func TestLostIndexAndOldContent(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{}
	sizes := []int{0, 5, 400, 3000, 16 << 10, 100_000, 3 << 20}
	names := []string{"chmod", "xattr", "patched", "renamed", "read", "quiet"}
	for i, n := range sizes {
		for j, name := range names {
			p, b := fmt.Sprintf("%s%d", name, i), random(uint64(100*i+j), n)
			d.put(p, b)
			want[p] = string(b)
			if err := d.tree.SetXattr(ctx, must(d.tree.Find(ctx, p)).Ino, "user.old", []byte(p), 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := d.tree.Symlink(ctx, tree.Root, "link", "where it leads", tree.Owner{}); err != nil {
		t.Fatal(err)
	}
	d.sync()
	d.forgetJournal()
	for restart := range 2 { // what is in memory, and what is not
		if restart > 0 {
			d.close()
			d.open(nil)
		}
		for i := range sizes {
			if i%2 != restart {
				continue
			}
			ino := func(name string) tree.Ino { return must(d.tree.Find(ctx, fmt.Sprintf("%s%d", name, i))).Ino }
			mode := uint32(0o600)
			must(d.tree.SetAttr(ctx, ino("chmod"), tree.SetAttr{Mode: &mode}))
			if err := d.tree.SetXattr(ctx, ino("xattr"), "user.new", []byte("value"), 0); err != nil {
				t.Fatal(err)
			}
			p := fmt.Sprintf("patched%d", i)
			d.edit(p, []byte{'!'}, 2)
			b := []byte(want[p])
			b = append(b, make([]byte, max(0, 3-len(b)))...)
			b[2] = '!'
			want[p] = string(b)
			old, now := fmt.Sprintf("renamed%d", i), fmt.Sprintf("moved%d", i)
			if err := d.tree.Rename(ctx, tree.Root, old, tree.Root, now, 0); err != nil {
				t.Fatal(err)
			}
			want[now] = want[old]
			delete(want, old)
			f := must(d.tree.Open(ctx, ino("read"), os.O_RDONLY))
			must(f.ReadAt(ctx, make([]byte, 1), 0))
			f.Release()
		}
		d.saveAtimes()
	}
	link, err := d.tree.Find(ctx, "link")
	if err != nil {
		t.Fatal(err)
	}
	must(d.tree.SetAttr(ctx, link.Ino, tree.SetAttr{Mtime: &tree.Time{Sec: 5}}))
	d.loseIndex()
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	if err := d.tree.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	if to, err := d.tree.Readlink(ctx, link.Ino); err != nil || to != "where it leads" {
		t.Errorf("the link leads to %q, %v", to, err)
	}
	if err := d.tree.Unlink(ctx, tree.Root, "link"); err != nil {
		t.Fatal(err)
	}
	check(t, d.listTree(), want)
	for p := range want {
		a := must(d.tree.Find(ctx, p))
		if v, err := d.tree.GetXattr(ctx, a.Ino, "user.old"); err != nil || len(v) == 0 {
			t.Errorf("%s lost an attribute: %q, %v", p, v, err)
		}
	}
	d.sync()
	check(t, d.committed(), want)
}

// What a commit has taken is whole when the index is lost right after the journal forgot
// all from before it, but what the commit itself had written.
func TestLostIndexAfterTheCommitThatForgot(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{"dir/": ""}
	for i, n := range []int{5, 400, 3000, 16 << 10, 100_000} {
		p := fmt.Sprint("dir/f", i)
		d.putting(want)(p, random(uint64(i), n))
		if err := d.tree.SetXattr(ctx, must(d.tree.Find(ctx, p)).Ino, "user.a", []byte(p), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.tree.SetXattr(ctx, tree.Root, "user.a", []byte("root"), 0); err != nil {
		t.Fatal(err)
	}
	d.fillJournal()
	d.sync()
	d.putting(want)("later", []byte("later")) // so that the root has a row that is newer than the commit
	d.loseIndex()
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	check(t, d.listTree(), want)
	for _, p := range []string{"dir/f0", "dir/f1", "dir/f2", "dir/f3", "dir/f4", ""} {
		ino := tree.Root
		if p != "" {
			ino = must(d.tree.Find(ctx, p)).Ino
		}
		if v, err := d.tree.GetXattr(ctx, ino, "user.a"); err != nil || len(v) == 0 {
			t.Errorf("%q lost an attribute: %q, %v", p, v, err)
		}
	}
	d.sync()
	check(t, d.committed(), want)
}

// A commit finds what changed below folders that did not change themselves, though the
// journal forgot these and the index was lost.
func TestLostIndexAndChangesFarBelow(t *testing.T) {
	for name, forgetFirst := range map[string]bool{"before": false, "after": true} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, memswarm.New(9, 4, 7))
			want := map[string]string{"dir/": "", "dir/sub/": "", "dir/sub/deep/": ""}
			put := d.putting(want)
			for i := range 20 {
				put(fmt.Sprint("dir/sub/deep/f", i), random(uint64(i), 3000))
			}
			d.sync()
			d.forgetJournal()
			put("dir/sub/deep/f7", []byte("changed after the commit"))
			if !forgetFirst {
				d.forgetJournal()
			}
			d.loseIndex()
			d.open(nil)
			if !d.lost {
				t.Fatal("the test did not lose anything")
			}
			d.sync() // before anybody looks
			check(t, d.committed(), want)
			check(t, d.listTree(), want)
		})
	}
}

// A directory that is to be committed again, without a change, has all of its entries
// when the index is lost.
func TestLostIndexAndADirectoryTakenAgain(t *testing.T) {
	d := newDevice(t, memswarm.New(9, 4, 7))
	want := map[string]string{"dir/": ""}
	d.putting(want)("dir/f", random(1, 3000))
	d.sync()
	d.forgetJournal()
	dir, _ := d.parent("dir/f")
	if !must(d.tree.AgainDir(dir)) {
		t.Fatal("there is nothing in it")
	}
	d.loseIndex()
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	check(t, d.listTree(), want)
	d.sync()
	check(t, d.committed(), want)
}

// A file that the kernel writes alone may change after a commit has taken it and
// the journal has forgotten it, and nobody is told: that it is open is not
// forgotten.
func TestLostIndexAndAFileBeingWritten(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, pass: true}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	d.put("dir/other", []byte("other"))
	dir, _ := d.parent("dir/f")
	f, _, err := d.tree.Create(ctx, dir, "f", 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	first := string(random(1, 100_000))
	passed(t, f, first)
	d.sync()
	d.forgetJournal()
	passed(t, f, "second")
	if err := f.Sync(ctx, false); err != nil {
		t.Fatal(err)
	}
	d.loseIndex()
	d.open(nil)
	if !d.lost {
		t.Fatal("the test did not lose anything")
	}
	if err := d.tree.Sweep(ctx); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"dir/": "", "dir/other": "other", "dir/f": "second" + first[6:]}
	check(t, d.listTree(), want)
	d.sync()
	check(t, d.committed(), want)
}
