package dag

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/link"
	"skep/chunker/secret"
)

var testNames = secret.Key{9}

// smallInode is a record that differs with n.
func smallInode(n int) Inode {
	return Inode{ID: uint64(n) + 1, Mode: ModeRegular | 0o644, Nlink: 1, Size: int64(n) + 1, Content: rawLink(n), Mtime: Time{Sec: int64(n)}}
}

// bigInode is a record too large for the directory itself.
func bigInode(n int) Inode {
	r := smallInode(n)
	r.Xattrs = map[string][]byte{"user.big": make([]byte, 1200)}
	return r
}

// dirModel is what a directory should hold.
type dirModel map[string]Inode

func (m dirModel) apply(changes []Change) {
	for _, c := range changes {
		if c.Record == nil {
			delete(m, c.Name)
		} else {
			m[c.Name] = *c.Record
		}
	}
}

// checkDir compares a directory with its model in every way of reading it.
func checkDir(t testing.TB, s *memStore, root link.Link, m dirModel) {
	t.Helper()
	ctx := context.Background()
	got := dirModel{}
	err := WalkDir(ctx, s, root, func(name string, rec Inode) error {
		if _, ok := got[name]; ok {
			return fmt.Errorf("%q comes twice", name)
		}
		got[name] = rec
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Fatalf("directory has %d entries that differ from the %d expected", len(got), len(m))
	}
	looked := 0
	for name, want := range m {
		rec, ok, err := LookupDir(ctx, s, testNames, root, name)
		if err != nil || !ok || !reflect.DeepEqual(rec, want) {
			t.Fatalf("lookup of %q: %v %v", name, ok, err)
		}
		if looked++; looked == 20 {
			break
		}
	}
	if _, ok, err := LookupDir(ctx, s, testNames, root, "is not there"); ok || err != nil {
		t.Fatalf("lookup of an absent name: %v %v", ok, err)
	}
	checkForm(t, s, root, m)
	checkSecond(t, s, root, m)
}

// checkForm compares the root with that of the directory built at once.
func checkForm(t testing.TB, s *memStore, root link.Link, m dirModel) {
	t.Helper()
	ctx := context.Background()
	if len(m) == 0 {
		if !root.IsZero() {
			t.Fatal("the empty directory has a root")
		}
		return
	}
	d, err := loadDir(ctx, s, root)
	if err != nil {
		t.Fatal(err)
	}
	var edits []edit
	var entries []entry
	for name, rec := range m {
		e, err := putEntry(ctx, s, newNamer(testNames).stored(name), &rec)
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, edit{murmur(e.name), e})
		entries = append(entries, e)
	}
	slices.SortFunc(edits, compareEdits)
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	plain := dirNode(entries)
	if d.slots == nil {
		if want, _, err := putDirNode(ctx, s, plain); err != nil || want != root || plain.size() > maxPlainDir {
			t.Fatalf("a plain directory of %d bytes has another root: %v", plain.size(), err)
		}
		return
	}
	ed := newDirEditor(s)
	slots, err := ed.hamt.build(ctx, place{}, edits)
	if err != nil {
		t.Fatal(err)
	}
	if want, err := ed.putRoot(ctx, slots); err != nil || want != root {
		t.Fatalf("a HAMT edited is not the HAMT built: %v", err)
	}
	if _, ok := plainAgain(slots); ok {
		t.Fatal("a HAMT that should be plain")
	}
	if stockShards(t, s, entries) != root {
		t.Fatal("the stock builder builds something else")
	}
}

// checkSecond reads a directory by both readers.
func checkSecond(t testing.TB, s *memStore, root link.Link, m dirModel) {
	t.Helper()
	got := dirModel{}
	err := CheckDir(context.Background(), s, testNames, root, func(name string, rec Inode) error {
		if _, ok := got[name]; ok {
			return fmt.Errorf("%q comes twice", name)
		}
		got[name] = rec
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, m) {
		t.Fatalf("both readers find %d entries that differ from the %d expected", len(got), len(m))
	}
}

// TestDirEdits edits directories at random and checks each state.
func TestDirEdits(t *testing.T) {
	tt := t
	rapid.Check(t, func(t *rapid.T) {
		s, m := newStore(), dirModel{}
		var root link.Link
		for range rapid.IntRange(1, 5).Draw(t, "steps") {
			changes := drawChanges(t)
			after, err := EditDir(context.Background(), s, testNames, root, changes)
			if err != nil {
				t.Fatal(err)
			}
			m.apply(changes)
			root = after
			checkDir(tt, s, root, m)
		}
	})
}

// drawChanges draws a batch: some single entries, and ranges of many, so that
// directories of all sizes come about and go.
func drawChanges(t *rapid.T) []Change {
	var out []Change
	add := func(n, kind int) {
		c := Change{Name: fmt.Sprintf("file %d", n)}
		switch kind {
		case 0:
			r := bigInode(n)
			c.Record = &r
		case 1, 2:
			r := smallInode(n * kind)
			c.Record = &r
		}
		out = append(out, c)
	}
	for range rapid.IntRange(0, 8).Draw(t, "single") {
		add(rapid.IntRange(0, 3000).Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "kind"))
	}
	if rapid.Bool().Draw(t, "many") {
		from := rapid.IntRange(0, 2500).Draw(t, "from")
		to := from + rapid.OneOf(rapid.IntRange(0, 60), rapid.IntRange(0, 3000)).Draw(t, "len")
		kind := rapid.SampledFrom([]int{1, 2, 3, 3}).Draw(t, "kinds")
		for n := from; n < to; n++ {
			add(n, kind)
		}
	}
	return out
}

func TestDirGrowsAndShrinks(t *testing.T) {
	s, m := newStore(), dirModel{}
	ctx := context.Background()
	var root link.Link
	step := func(changes ...Change) {
		t.Helper()
		var err error
		if root, err = EditDir(ctx, s, testNames, root, changes); err != nil {
			t.Fatal(err)
		}
		m.apply(changes)
		checkDir(t, s, root, m)
	}
	var all []Change
	for n := range 5000 {
		r := smallInode(n)
		all = append(all, Change{fmt.Sprintf("n%d", n), &r})
	}
	sharded := func() bool {
		d, err := loadDir(ctx, s, root)
		if err != nil {
			t.Fatal(err)
		}
		return d.slots != nil
	}
	step(all[0])
	step(all[:100]...)
	if sharded() {
		t.Fatal("100 entries are sharded")
	}
	step(all...)
	if !sharded() {
		t.Fatal("5000 entries are not sharded")
	}
	gone := make([]Change, len(all))
	for i := range all {
		gone[i] = Change{Name: all[i].Name}
	}
	step(gone[:4000]...)
	step(gone[4000:4950]...)
	for i := 4950; i < 5000; i++ {
		step(gone[i])
		if i == 4998 && sharded() {
			t.Fatal("a single entry is sharded")
		}
	}
	if !root.IsZero() {
		t.Fatal("the empty directory has a root")
	}
	step(all[3])
	step(gone...)
}

func TestEditDirKeepsRoot(t *testing.T) {
	s := newStore()
	ctx := context.Background()
	for _, n := range []int{0, 3, 3000} {
		var changes []Change
		for i := range n {
			r := smallInode(i)
			changes = append(changes, Change{fmt.Sprint(i), &r})
		}
		root, err := EditDir(ctx, s, testNames, link.Link{}, changes)
		if err != nil {
			t.Fatal(err)
		}
		s.resetCounts()
		changes = append(changes, Change{Name: "absent"}, Change{Name: "another"})
		again, err := EditDir(ctx, s, testNames, root, changes)
		if err != nil || again != root || s.puts != 0 {
			t.Fatalf("%d entries: the same again wrote %d blocks: %v", n, s.puts, err)
		}
	}
}

func TestLastChangeCounts(t *testing.T) {
	s := newStore()
	a, b := smallInode(1), smallInode(2)
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, []Change{
		{"x", &a}, {"y", &a}, {"x", &b}, {"y", nil}, {"z", nil}, {"z", &b},
	})
	if err != nil {
		t.Fatal(err)
	}
	checkDir(t, s, root, dirModel{"x": b, "z": b})
}

// A directory that is edited in parts, arranged, is the same as if it were at
// once, and costs hardly more.
func TestArrange(t *testing.T) {
	var names []string
	for i := range 20_000 {
		names = append(names, fmt.Sprintf("entry %d", i))
	}
	edit := func(part int, arranged bool) (link.Link, int) {
		s, names := newStore(), slices.Clone(names)
		s.trusting = true
		if arranged {
			Arrange(testNames, names)
		}
		var root link.Link
		for some := range slices.Chunk(names, part) {
			var changes []Change
			for _, name := range some {
				rec := smallInode(len(name))
				changes = append(changes, Change{name, &rec})
			}
			var err error
			if root, err = EditDir(context.Background(), s, testNames, root, changes); err != nil {
				t.Fatal(err)
			}
		}
		return root, s.puts
	}
	whole, once := edit(len(names), false)
	root, parts := edit(1000, true)
	if root != whole {
		t.Error("in parts, another directory comes out")
	}
	_, mixed := edit(1000, false)
	t.Logf("nodes written: %d at once, %d in parts, %d in parts as they came", once, parts, mixed)
	if parts > once+once/4+60 {
		t.Errorf("%d nodes were written in parts, %d at once", parts, once)
	}
}

func TestNames(t *testing.T) {
	s, m := newStore(), dirModel{}
	for i, name := range []string{"a", "\xff\xfe not text", "ünï", strings.Repeat("x", MaxName), "...", " ", "\n", "00", "AB"} {
		m[name] = smallInode(i)
	}
	var changes []Change
	for name, rec := range m {
		changes = append(changes, Change{name, &rec})
	}
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, changes)
	if err != nil {
		t.Fatal(err)
	}
	checkDir(t, s, root, m)
	rec := smallInode(1)
	for _, bad := range []string{"", ".", "..", "a/b", "/", "a\x00", strings.Repeat("x", MaxName+1)} {
		if _, err := EditDir(context.Background(), s, testNames, root, []Change{{bad, &rec}}); !errors.Is(err, ErrName) {
			t.Errorf("%q is accepted: %v", bad, err)
		}
		if _, _, err := LookupDir(context.Background(), s, testNames, root, bad); !errors.Is(err, ErrName) {
			t.Errorf("%q is looked up: %v", bad, err)
		}
	}
}

// TestInodeTable uses a directory as the table of inodes with several links.
func TestInodeTable(t *testing.T) {
	s := newStore()
	ctx := context.Background()
	const id = 0xabc0000000000123
	rec := smallInode(4)
	rec.ID, rec.Nlink = id, 2
	entry := Inode{ID: id, Mode: ModeRegular, Linked: true}
	table, err := EditDir(ctx, s, testNames, link.Link{}, []Change{{InodeName(id), &rec}})
	if err != nil {
		t.Fatal(err)
	}
	root, err := EditDir(ctx, s, testNames, link.Link{}, []Change{{"one", &entry}, {"two", &entry}})
	if err != nil {
		t.Fatal(err)
	}
	got, ok, err := LookupDir(ctx, s, testNames, root, "two")
	if err != nil || !ok || !reflect.DeepEqual(got, entry) {
		t.Fatalf("%v %v %v", got, ok, err)
	}
	if InodeName(id) != "abc0000000000123" || len(InodeName(1)) != 16 {
		t.Fatalf("name %q", InodeName(id))
	}
	got, ok, err = LookupDir(ctx, s, testNames, table, InodeName(got.ID))
	if err != nil || !ok || !reflect.DeepEqual(got, rec) {
		t.Fatalf("%v %v %v", got, ok, err)
	}
}
