package writeback_test

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/reseal"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// losing is a drive of which packs get lost.
type losing struct {
	*device
	lost reseal.Lost
}

// newLosing returns a new drive; pass says whether the kernel may write alone.
func newLosing(t *testing.T, pass bool) *losing {
	t.Helper()
	d := &losing{device: &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), pass: pass}}
	d.gone = d.isLost
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	return d
}

func (d *losing) isLost(id group.ID, n uint16) bool {
	b := d.lost[id]
	return b.Has(n)
}

// lose has all holders lose all packs of a kind that there are now.
func (d *losing) lose(kind group.Kind) {
	d.t.Helper()
	d.lost = reseal.Lost{}
	for _, g := range must(d.table.Groups()) {
		b := d.lost[g.ID]
		for n := range g.Packs {
			if _, there, err := d.table.Pack(g.ID, n); err == nil && there && g.Kind == kind {
				b.Add(n)
			}
		}
		d.lost[g.ID] = b
	}
	d.swarm.Lose(func(p group.PackRef) bool { return d.isLost(p.Group, p.Number) })
}

func (d *losing) look() reseal.Found {
	d.t.Helper()
	found, err := reseal.Drive{
		Tree: d.tree, Table: d.table, Blocks: d.reader, Anew: d.engine.Anew, Sealer: block.NewSealer(convergence),
	}.Look(ctx, d.lost)
	if err != nil {
		d.t.Fatal(err)
	}
	return found
}

// damage flips a bit in the middle of every backing file.
func (d *device) damage() {
	d.t.Helper()
	err := filepath.WalkDir(filepath.Join(d.dir, "files"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		b := must(os.ReadFile(path))
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

func (d *losing) inode(path string) tree.Ino { return must(d.tree.Find(ctx, path)).Ino }

// What holders have lost of the content, and what is here, goes out again by itself,
// of files in every form; what is not here, or not as it was, is named.
func TestLostContentGoesOutAgain(t *testing.T) {
	d := newLosing(t, false)
	want := map[string]string{"dir/": ""}
	put := d.putting(want)
	put("dir/large", random(1, 5<<20+17))
	put("dir/row", random(2, 3000))
	put("one", random(3, 700_000))
	put("inrecord", []byte("tiny"))
	put("away", random(4, 2<<20+9))
	put("partly", random(5, 3<<20))
	d.sync()
	for _, name := range []string{"away", "partly"} {
		if n, err := d.tree.Evict(ctx, d.inode(name), false); err != nil || n == 0 {
			t.Fatal(n, err)
		}
	}
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	f := must(d.tree.Open(ctx, d.inode("partly"), 0))
	if n, err := f.ReadAt(ctx, make([]byte, 100), 1<<20+5); n != 100 || err != nil {
		t.Fatal(n, err)
	}
	f.Release()

	before := d.swarm.Stored()
	d.lose(group.Content)
	found := d.look()
	if found.Again < 3 || !slices.Equal(found.Gone, []string{"/away", "/partly"}) || found.Elsewhere != 0 {
		t.Fatalf("found %+v", found)
	}
	d.sync()
	if sent := d.swarm.Stored() - before; sent > 3*(10<<20) {
		t.Errorf("%d bytes went out for some 8 MiB", sent)
	}
	if found = d.look(); found.Again != 0 || !slices.Equal(found.Gone, []string{"/away", "/partly"}) {
		t.Fatalf("after it went out: %+v", found)
	}
	for _, name := range []string{"away", "partly"} {
		ino := d.inode(name)
		if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
			t.Fatal(err)
		}
		d.tree.Forget(ino)
		delete(want, name)
	}
	d.sync()
	check(t, d.committed(), want)
	d.put("tick", nil)
	d.sync()
	if found = d.look(); found.Again != 0 || found.Gone != nil || found.Elsewhere != 0 {
		t.Errorf("when all is well: %+v", found)
	}
	d.audit()
}

// What differs here from what was committed does not take its place.
func TestDamagedContentDoesNotGoOutAgain(t *testing.T) {
	d := newLosing(t, true)
	want := random(1, 3<<20)
	d.put("f", want)
	d.sync()
	d.damage()
	d.lose(group.Content)
	reader := must(d.tree.Open(ctx, d.inode("f"), os.O_RDONLY)) // which keeps the file as it is
	if found := d.look(); found.Again != 1 || !slices.Equal(found.Gone, []string{"/f"}) {
		t.Fatalf("%+v", found)
	}
	d.sync()
	reader.Release()
	d.sync()
	st := must(d.tree.ContentState(ctx, d.inode("f")))
	for i := range int64(3) {
		part := want[i<<20 : (i+1)<<20]
		if b, err := d.reader.ReadChunk(ctx, dag.File{Root: st.Content, Size: st.Size}, i); (err == nil) != (i != 1) || err == nil && !bytes.Equal(b, part) {
			t.Errorf("chunk %d: %d bytes, %v", i, len(b), err)
		}
	}
	if found := d.look(); found.Again != 0 || !slices.Equal(found.Gone, []string{"/f"}) {
		t.Fatalf("%+v", found)
	}
}

// Of a file that changes all the time, as a log, what is lost and did not change is
// named as well; what was cut off is missed by nobody.
func TestLostContentOfAChangingFile(t *testing.T) {
	d := newLosing(t, false)
	d.put("f", random(5, 3<<20))
	d.sync()
	if n, err := d.tree.Evict(ctx, d.inode("f"), false); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := d.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	d.lose(group.Content)
	f := must(d.tree.Open(ctx, d.inode("f"), os.O_RDWR))
	defer f.Release()
	for i, want := range [][]string{{"/f"}, {"/f"}, nil} { // as its chunks are written, one by one
		must(f.WriteAt(ctx, random(6, 1<<20), int64(i)<<20, false))
		if found := d.look(); found.Again != 0 || !slices.Equal(found.Gone, want) {
			t.Errorf("when %d chunks have changed: %+v", i+1, found)
		}
	}
	d.sync()
	if found := d.look(); found.Again != 0 || found.Gone != nil {
		t.Errorf("when all are out: %+v", found)
	}
}

// What is cut off a file is not missed.
func TestLostContentThatIsCutOff(t *testing.T) {
	d := newLosing(t, false)
	d.put("f", random(5, 3<<20))
	d.sync()
	for i := range int64(2) { // the first chunk stays
		if err := d.tree.DropChunk(ctx, d.inode("f"), i+1); err != nil {
			t.Fatal(err)
		}
	}
	d.lose(group.Content)
	size := int64(1 << 20)
	must(d.tree.SetAttr(ctx, d.inode("f"), tree.SetAttr{Size: &size}))
	if found := d.look(); found.Again != 1 || found.Gone != nil {
		t.Errorf("%+v", found)
	}
}

// A file that the kernel writes alone, and that is open for long, goes out again as a
// whole.
func TestLostContentOfAPassedFile(t *testing.T) {
	d := newLosing(t, true)
	f, _, err := d.tree.Create(ctx, tree.Root, "f", 0o644, os.O_WRONLY, tree.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	content := string(random(1, 2<<20+5))
	passed(t, f, content)
	d.sync()
	d.lose(group.Content)
	if found := d.look(); found.Again != 1 || found.Gone != nil {
		t.Errorf("%+v", found)
	}
	d.sync()
	if found := d.look(); found.Again != 0 || found.Gone != nil {
		t.Errorf("when it is out: %+v", found)
	}
	check(t, d.committed(), map[string]string{"f": content})
}

// Folders, nodes of files and the index of a recovered device come back, too.
func TestLostMetadataGoesOutAgain(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	first := newDevice(t, swarm)
	want := map[string]string{"wide/": "", "wide/sub/": ""}
	put := first.putting(want)
	for i := range 400 {
		put(fmt.Sprintf("wide/%d", i), random(uint64(i), 600))
	}
	put("wide/sub/large", random(1000, 3<<20))
	first.sync()
	first.close()

	d := &losing{device: recovered(t, swarm)}
	d.gone = d.isLost
	d.close() // to open it with gone
	d.open(nil)
	d.counted()
	check(t, d.listTree(), want)
	d.tree.Close()
	d.close()
	d.open(nil)
	d.lose(group.Metadata)
	if found := d.look(); found.Again < 3 || found.Gone != nil {
		t.Fatalf("%+v", found)
	}
	d.sync()
	check(t, d.committed(), want)
	if found := d.look(); found.Again != 0 || found.Gone != nil {
		t.Fatalf("%+v", found)
	}
	var lost []string
	for id, packs := range d.lost { // who recovers now needs none of them
		for n := range uint16(group.MaxPacks) {
			for _, b := range must(d.table.Members(id, n)) {
				if packs.Has(n) && b.Refs > 0 && len(b.Places) == 1 {
					lost = append(lost, b.Link.String())
				}
			}
		}
	}
	if len(lost) > 0 {
		t.Errorf("%d blocks are in lost packs alone", len(lost))
	}
}

// storedTwice is a drive whose file f is in two packs: it was stored again, as the first was
// lost, which is back, and nothing is given up. home is the second one.
func storedTwice(t *testing.T) (d *losing, home, first place, want map[string]string) {
	t.Helper()
	d = newLosing(t, false)
	d.close()
	d.alone = func(time.Time) bool { return false }
	d.open(nil)
	want = map[string]string{}
	d.putting(want)("f", random(1, 300_000))
	d.sync()
	packs := func(i int) (out place) {
		t.Helper()
		err := d.table.Packs(func(p blocks.Pack) bool {
			if p.Kind == group.Content && (p.Live > 0) == (i == 0) {
				out = place{p.Group, p.Number}
			}
			return true
		})
		if err != nil || out == (place{}) {
			t.Fatal("no such pack", err)
		}
		return out
	}
	first = packs(0)
	d.lost = reseal.Lost{first.group: only(first.number)}
	if found := d.look(); found.Again != 1 {
		t.Fatalf("%+v", found)
	}
	d.sync()
	d.lost = nil
	if home = packs(0); home == first || packs(1) != first {
		t.Fatal("the file is not stored twice")
	}
	return d, home, first, want
}

func only(number uint16) (b group.Bitmap) {
	b.Add(number)
	return b
}

// die has the account call a pack dead.
func (d *losing) die(p place) {
	d.t.Helper()
	err := d.table.UpdateGroup(p.group, func(g *group.Group) error {
		g.Dead.Add(p.number)
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// A pack that the account calls dead, and has not forgotten yet, has nothing: what is in a
// lost pack otherwise goes out again.
func TestDeadPackHasNothing(t *testing.T) {
	d, home, first, want := storedTwice(t)
	d.die(first)
	d.lost = reseal.Lost{home.group: only(home.number)}
	d.swarm.Lose(func(p group.PackRef) bool {
		return place{p.Group, p.Number} == home || place{p.Group, p.Number} == first
	})
	if found := d.look(); found.Again != 1 || found.Gone != nil {
		t.Errorf("%+v", found)
	}
	d.sync()
	check(t, d.committed(), want)
}

// Nor is a pack given up as its blocks are in one that is dead.
func TestPackIsKeptForADeadOne(t *testing.T) {
	d, home, first, _ := storedTwice(t)
	d.die(home)
	d.close()
	d.alone = nil
	d.open(nil)
	d.put("tick", nil)
	d.sync()
	if _, there, err := d.table.Pack(first.group, first.number); err != nil || !there {
		t.Error("the last pack that has it is given up", err)
	}
}

// Nor one that blocks leave a lost pack for while it is given up.
func TestPackThatIsNeededAgainIsNotGivenUp(t *testing.T) {
	d, home, first, want := storedTwice(t)
	d.close()
	d.alone = nil
	out, left := false, false
	d.publish = func(ctx context.Context, h commit.Head) error {
		out = true
		return d.swarm.Publish(ctx, h)
	}
	d.said = func(p blocks.Pack) int { // asked for the home, before what is left of the first is given up
		if (place{p.Group, p.Number}) == home && out && !left {
			left = must(d.table.Leave(home.group, home.number, func(p blockindex.Place) bool { return place{p.Group, p.Number} == home }))
		}
		return p.Acked.Count()
	}
	d.open(nil)
	d.put("tick", nil)
	want["tick"] = ""
	d.sync()
	if p, there, err := d.table.Pack(first.group, first.number); !left || err != nil || !there || p.Live == 0 {
		t.Fatalf("left: %v, there: %v, %+v, %v", left, there, p, err)
	}
	d.lost = reseal.Lost{home.group: only(home.number)}
	d.swarm.Lose(func(p group.PackRef) bool { return place{p.Group, p.Number} == home })
	d.put("tock", nil)
	want["tock"] = ""
	d.sync()
	check(t, d.committed(), want)
	d.audit()
}
