package blocks

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// A drive is a model of what a device stored: a graph of blocks that lie in
// packs, the newest commit being its root. The account has to agree with it.
type drive struct {
	t     *rapid.T
	dir   string
	st    *state.Store
	table *Table

	kids  map[link.Hash][]link.Link // of every block that was ever made
	homes map[link.Hash]blockindex.Place
	fresh []link.Link // stored since everything was reclaimed, not in a commit
	root  link.Link
	made  []link.Link // every block
	packs uint16
}

var modelGroup = group.ID{1}

// newDrive begins anew in tables that an earlier one leaves: opening new ones
// takes long.
func newDrive(t *rapid.T, dir string, st *state.Store) *drive {
	d := &drive{t: t, dir: dir, st: st, table: New(st), kids: map[link.Hash][]link.Link{}, homes: map[link.Hash]blockindex.Place{}}
	d.ok(d.table.clear())
	return d
}

func (d *drive) open() {
	var err error
	if d.st, err = state.Open(d.dir); err != nil {
		d.t.Fatal(err)
	}
	d.table = New(d.st)
}

func (d *drive) ok(err error) {
	if err != nil {
		d.t.Fatal(err)
	}
}

// newBlock makes a block that refers to others.
func (d *drive) newBlock(kids []link.Link) Stored {
	n := uint32(len(d.made) + 1)
	l := link.Link{Codec: link.DagPB, Key: [32]byte{1}}
	if len(kids) == 0 {
		l.Codec = link.Raw
	}
	binary.BigEndian.PutUint32(l.Hash[:], n*2654435761) // spread over the table
	binary.BigEndian.PutUint32(l.Hash[28:], n)
	d.kids[l.Hash], d.made = kids, append(d.made, l)
	return d.stored(l)
}

func (d *drive) stored(l link.Link) Stored {
	return Stored{Entry: pack.Entry{Link: l, Tag: block.Tag(l.Hash[16:]), Length: uint32(len(d.kids[l.Hash])+1) * 10}, Refs: d.kids[l.Hash]}
}

// add stores blocks in a pack of their own.
func (d *drive) add(blocks []Stored) {
	p := Pack{Group: modelGroup, Number: d.packs, Kind: group.Content}
	d.packs++
	for i := range blocks {
		blocks[i].Offset = uint32(16 + i*1000)
		d.homes[blocks[i].Link.Hash] = blockindex.Place{Group: p.Group, Number: p.Number, Offset: blocks[i].Offset, Length: blocks[i].Length}
	}
	d.ok(d.table.AddPack(p, nil, blocks))
}

// reachable are the blocks that the newest commit needs.
func (d *drive) reachable() map[link.Hash]link.Link {
	out := map[link.Hash]link.Link{}
	var visit func(l link.Link)
	visit = func(l link.Link) {
		if _, ok := out[l.Hash]; ok {
			return
		}
		out[l.Hash] = l
		for _, k := range d.kids[l.Hash] {
			visit(k)
		}
	}
	if !d.root.IsZero() {
		visit(d.root)
	}
	return out
}

// usable are blocks that a commit may refer to again, in a fixed order.
func (d *drive) usable() []link.Link {
	var out []link.Link
	for _, l := range d.reachable() {
		if l != d.root {
			out = append(out, l)
		}
	}
	out = append(out, d.fresh...)
	slices.SortFunc(out, func(a, b link.Link) int { return slices.Compare(a.Hash[:], b.Hash[:]) })
	return slices.Compact(out)
}

// pick draws some of these blocks, each once.
func (d *drive) pick(from []link.Link, most int, label string) []link.Link {
	if len(from) == 0 {
		return nil
	}
	var out []link.Link
	for range rapid.IntRange(0, most).Draw(d.t, label) {
		if l := rapid.SampledFrom(from).Draw(d.t, label); !slices.Contains(out, l) {
			out = append(out, l)
		}
	}
	return out
}

// again returns a block that was given up, with all below it that were: somebody
// writes what was there before, and it seals to the same.
func (d *drive) again(there []link.Link) []Stored {
	var gone []link.Link
	for _, l := range d.made {
		if !slices.Contains(there, l) && l != d.root {
			gone = append(gone, l)
		}
	}
	if len(gone) == 0 {
		return nil
	}
	var out []Stored
	var bring func(l link.Link)
	bring = func(l link.Link) {
		if slices.Contains(there, l) || l == d.root {
			return
		}
		there = append(there, l)
		for _, k := range d.kids[l.Hash] {
			bring(k)
		}
		out = append(out, d.stored(l))
	}
	bring(rapid.SampledFrom(gone).Draw(d.t, "gone"))
	return out
}

// grow stores new blocks over old ones and returns a root above them.
func (d *drive) grow() link.Link {
	old := d.usable()
	var made []link.Link
	var batch []Stored
	for range rapid.IntRange(1, 6).Draw(d.t, "new") {
		if rapid.IntRange(0, 3).Draw(d.t, "again") == 0 {
			again := d.again(slices.Concat(old, made))
			for _, s := range again {
				made = append(made, s.Link)
			}
			batch = append(batch, again...)
			continue
		}
		s := d.newBlock(append(d.pick(old, 3, "old kid"), d.pick(made, 2, "new kid")...))
		made, batch = append(made, s.Link), append(batch, s)
		if rapid.IntRange(0, 3).Draw(d.t, "pack is full") == 0 {
			d.add(batch)
			batch = nil
		}
	}
	root := d.newBlock(append(d.pick(old, 3, "old entry"), made...))
	d.add(append(batch, root))
	for _, l := range append(made, root.Link) {
		if l != root.Link {
			d.fresh = append(d.fresh, l)
		}
	}
	return root.Link
}

func (d *drive) commit() {
	root := d.grow()
	d.ok(d.table.Turn(root, d.root, func(*state.Batch) error { return nil }))
	d.root = root
}

// fold stores some blocks that are needed a second time.
func (d *drive) fold() {
	var moved []Stored
	for _, l := range d.pick(d.usable(), 4, "moved") {
		if _, needed := d.reachable()[l.Hash]; needed {
			moved = append(moved, d.stored(l))
		}
	}
	if len(moved) > 0 {
		d.add(moved)
	}
}

func (d *drive) children(l link.Link) ([]link.Link, error) { return d.kids[l.Hash], nil }

// stillThere reads a block, which has to be in a pack for that.
func (d *drive) stillThere(l link.Link) ([]link.Link, error) {
	if b, ok, err := d.table.Get(l.Hash); err != nil || !ok || len(b.Places) == 0 {
		return nil, fmt.Errorf("block %v is stored nowhere: %w", l, err)
	}
	return d.kids[l.Hash], nil
}

// reclaim drops what is not needed and buries the packs that are empty then.
func (d *drive) reclaim() {
	d.reclaimUnread()
	step := rapid.IntRange(1, 8).Draw(d.t, "step")
	for more := true; more; {
		var err error
		more, err = d.table.Reclaim(step, d.stillThere)
		d.ok(err)
	}
	d.fresh = nil
	d.check()
	d.bury()
	d.check()
}

// reclaimUnread is reclaim while some blocks cannot be read.
func (d *drive) reclaimUnread() {
	every := rapid.Uint8Range(1, 4).Draw(d.t, "unread: one of")
	children := func(l link.Link) ([]link.Link, error) {
		if l.Hash[0]%every == 0 {
			return nil, errors.New("nobody answers")
		}
		return d.stillThere(l)
	}
	for more := true; more; {
		var err error
		if more, err = d.table.Reclaim(8, children); errors.Is(err, ErrUnread) {
			more, err = true, nil
		}
		d.ok(err)
	}
	d.bury()
	d.table.RetryUnread()
}

// bury gives up the packs in which nothing lives, and nothing is still to be read.
func (d *drive) bury() {
	var dead []uint16
	d.ok(d.table.Packs(func(p Pack) bool {
		if p.Live == 0 {
			dead = append(dead, p.Number)
		}
		return true
	}))
	for _, n := range dead {
		awaited, err := d.table.Awaited(modelGroup, n)
		d.ok(err)
		if !awaited {
			d.ok(d.table.Bury(modelGroup, n))
		}
	}
}

// check compares the account with the model; nothing is left to reclaim.
func (d *drive) check() {
	refs, live := map[link.Hash]uint64{}, map[uint16]uint64{}
	needed := d.reachable()
	for h, l := range needed {
		live[d.homes[h].Number] += uint64(d.homes[h].Length)
		for _, k := range d.kids[l.Hash] {
			refs[k.Hash]++
		}
	}
	if !d.root.IsZero() {
		refs[d.root.Hash]++
	}
	for h, l := range needed {
		b, ok, err := d.table.Get(h)
		d.ok(err)
		if !ok || len(b.Places) == 0 {
			d.t.Fatalf("block %v is needed and lies nowhere", l)
		}
		if b.Refs != refs[h] {
			d.t.Fatalf("block %v has %d references, the account says %d", l, refs[h], b.Refs)
		}
		if b.Places[0] != d.homes[h] {
			d.t.Fatalf("block %v is at home at %+v, the account says %+v", l, d.homes[h], b.Places[0])
		}
		if got, ok, err := d.table.Find(b.Tag); err != nil || !ok || got != l {
			d.t.Fatalf("block %v is not found by its tag: %v", l, err)
		}
	}
	for h := range d.kids {
		if b, ok, err := d.table.Get(h); err != nil || ok && b.Refs > 0 && needed[h].IsZero() {
			d.t.Fatalf("block %x is not needed and has %d references: %v", h[28:], b.Refs, err)
		}
	}
	d.ok(d.table.Packs(func(p Pack) bool {
		if p.Live != live[p.Number] {
			d.t.Fatalf("pack %d has %d live bytes, the account says %d", p.Number, live[p.Number], p.Live)
		}
		delete(live, p.Number)
		return true
	}))
	if len(live) > 0 {
		d.t.Fatalf("packs %v are needed and not in the account", live)
	}
	var roots []link.Link
	if !d.root.IsZero() {
		roots = append(roots, d.root)
	}
	d.ok(d.table.Audit(roots, d.children, func(f Fault) { d.t.Fatalf("an audit finds: %v", f) }))
}

// recount begins the account anew, as a device does that joined the drive or
// lost its index: places are learned from the index, at any time, those of blocks
// among them that the newest commit does not need any more; and commits go on.
func (d *drive) recount() {
	if d.root.IsZero() {
		return
	}
	d.fresh = nil // no index has heard of it
	g := group.Group{ID: modelGroup, Class: 20, Kind: group.Content, Coding: erasure.NewCoding(1, 1), Slots: []group.PeerKey{{9}}, Packs: d.packs}
	for n := range d.packs {
		if _, ok, err := d.table.Pack(modelGroup, n); err != nil || !ok {
			d.ok(err)
			g.Dead.Add(n) // it was buried
		}
	}
	d.ok(d.table.PutGroup(g))
	entry := func(l link.Link) blockindex.Entry {
		return blockindex.Entry{Link: l, Tag: block.Tag(l.Hash[16:]), Place: d.homes[l.Hash]}
	}
	var entries []blockindex.Entry
	for _, l := range d.made {
		if home, ok := d.homes[l.Hash]; ok && l != d.root && !g.Dead.Has(home.Number) {
			entries = append(entries, entry(l))
		}
	}
	slices.SortFunc(entries, blockindex.Compare)
	d.ok(d.table.BeginRecount([]blockindex.Entry{entry(d.root)}))
	commits := rapid.IntRange(0, 3).Draw(d.t, "commits meanwhile")
	for more := true; more || len(entries) > 0; {
		if commits > 0 && d.packs < group.MaxPacks-10 && rapid.Bool().Draw(d.t, "commit now") {
			commits--
			d.commit()
			more = true
		}
		if n := min(len(entries), rapid.IntRange(0, 5).Draw(d.t, "learn")); n > 0 {
			d.ok(d.table.Learn(entries[:n]))
			entries = entries[n:]
		}
		if rapid.Bool().Draw(d.t, "count") || len(entries) == 0 {
			var err error
			more, err = d.table.RecountStep(3, d.children)
			d.ok(err)
		}
	}
	if counted, err := d.table.Counted(); err != nil || !counted {
		d.t.Fatalf("not counted: %v", err)
	}
	d.reclaim()
}

func (d *drive) restart() {
	if rapid.IntRange(0, 9).Draw(d.t, "restart") > 0 {
		return // it takes long
	}
	d.ok(d.st.Close())
	d.open()
}

// TestAccount lives through commits, some of which fail, folding, reclaiming,
// and beginning anew.
func TestAccount(t *testing.T) {
	dir := t.TempDir()
	st, err := state.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = st.Close() }()
	rapid.Check(t, func(rt *rapid.T) {
		d := newDrive(rt, dir, st)
		defer func() { st = d.st }()
		rt.Repeat(map[string]func(*rapid.T){
			"commit":  func(*rapid.T) { d.room(); d.commit() },
			"failed":  func(*rapid.T) { d.room(); d.fresh = append(d.fresh, d.grow()) },
			"fold":    func(*rapid.T) { d.room(); d.fold() },
			"reclaim": func(*rapid.T) { d.reclaim() },
			"recount": func(*rapid.T) { d.recount() },
			"restart": func(*rapid.T) { d.restart() },
		})
		d.reclaim()
	})
}

// room ends a step that a group has no room for.
func (d *drive) room() {
	if d.packs > group.MaxPacks-10 {
		d.t.Skip("the group is full")
	}
}

func table(t *testing.T) *Table {
	t.Helper()
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return New(st)
}

// A group's account is carried through the journal, and numbers of packs are
// not given out twice.
func TestGroups(t *testing.T) {
	tab := table(t)
	for i := range 3 {
		g := group.Group{ID: group.ID{byte(i)}, Class: 20, Coding: erasure.NewCoding(2, 3), Slots: make([]group.PeerKey, 3)}
		if err := tab.PutGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.UpdateGroup(group.ID{1}, func(g *group.Group) error { g.Packs++; return nil }); err != nil {
		t.Fatal(err)
	}
	if err := tab.Carry(); err != nil {
		t.Fatal(err)
	}
	all, err := tab.Groups()
	if err != nil || len(all) != 3 || all[1].Packs != 1 || all[2].ID != (group.ID{2}) {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := tab.UpdateGroup(group.ID{7}, func(*group.Group) error { return nil }); err == nil {
		t.Error("a group that is not there was changed")
	}
	if err := tab.UpdateGroup(group.ID{1}, func(g *group.Group) error { g.Packs = 9; return fmt.Errorf("no") }); err == nil {
		t.Error("the error of the change is lost")
	}
	if g, ok, err := tab.Group(group.ID{1}); err != nil || !ok || g.Packs != 1 {
		t.Errorf("a change that failed was made: %+v, %v", g, err)
	}
}

// The index gains what no segment has, once.
func TestNewEntries(t *testing.T) {
	tab := table(t)
	l := link.Link{Codec: link.Raw, Hash: link.Hash{5}, Key: [32]byte{1}}
	s := Stored{Entry: pack.Entry{Link: l, Tag: block.Tag{6}, Offset: 16, Length: 100}}
	if err := tab.AddPack(Pack{Group: modelGroup, Number: 3}, nil, []Stored{s}); err != nil {
		t.Fatal(err)
	}
	fresh := func() (out []blockindex.Entry) {
		for e, err := range tab.NewEntries() {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, e)
		}
		return out
	}
	want := blockindex.Entry{Link: l, Tag: s.Tag, Place: blockindex.Place{Group: modelGroup, Number: 3, Offset: 16, Length: 100}}
	if fresh := fresh(); !slices.Equal(fresh, []blockindex.Entry{want}) {
		t.Fatalf("%v", fresh)
	}
	// Moved meanwhile: the new place is in no segment.
	s.Offset = 500
	if err := tab.AddPack(Pack{Group: modelGroup, Number: 4}, nil, []Stored{s}); err != nil {
		t.Fatal(err)
	}
	if err := tab.Indexed(func(p blockindex.Place) bool { return p.Number == 4 }); err != nil {
		t.Fatal(err)
	}
	if fresh := fresh(); len(fresh) != 1 || fresh[0].Place.Number != 4 {
		t.Fatalf("%v", fresh)
	}
	if err := tab.Indexed(func(blockindex.Place) bool { return false }); err != nil {
		t.Fatal(err)
	}
	if n, err := tab.CountNew(); err != nil || n != 0 || len(fresh()) != 0 {
		t.Fatalf("%d are new, %v", n, err)
	}
}

func FuzzDecodeBlock(f *testing.F) {
	b := Block{Link: link.Link{Codec: link.Raw, Hash: link.Hash{1}}, Places: []blockindex.Place{{Number: 1}}}
	f.Add(b.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		b, err := decodeBlock(p)
		if err != nil {
			return
		}
		again, err := decodeBlock(b.encode())
		if err != nil || !slices.Equal(again.Places, b.Places) || again.Refs != b.Refs || again.Link != b.Link {
			t.Fatalf("%+v comes back as %+v, %v", b, again, err)
		}
	})
}

func FuzzDecodePack(f *testing.F) {
	p := Pack{Group: modelGroup, Kind: group.Content, Manifest: []byte("m")}
	f.Add(p.encode())
	f.Fuzz(func(_ *testing.T, b []byte) {
		if p, err := decodePack(packKey(modelGroup, 0), b); err == nil {
			p.encode()
		}
	})
}
