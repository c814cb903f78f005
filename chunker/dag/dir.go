package dag

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"skep/chunker/link"
	"skep/chunker/secret"
)

const (
	// maxPlainDir is the largest node of a directory that is not sharded.
	maxPlainDir = 64 << 10
	// minShardedDir is the size below which a HAMT of one shard becomes a plain
	// directory again. It is well below maxPlainDir, so that a directory at the
	// border does not change its form with each entry.
	minShardedDir = 16 << 10
)

// Change is a change of one entry of a directory.
type Change struct {
	Name   string
	Record *Inode // nil removes the entry, if it is there
}

// Format prints the name alone, for every verb, so that no key in the record
// shows.
func (c Change) Format(f fmt.State, _ rune) { _, _ = fmt.Fprintf(f, "change of %q", c.Name) }

// EditDir applies changes, in any order, to the directory with root old, and
// returns the new root. Of several changes of one name the last counts. The zero
// link is the empty directory. Names is the secret under which entries are placed;
// a directory must be edited and looked up under the same. Changes and their
// records are only read, and not kept.
//
// Only the nodes on the way to changed entries are read and written, each once,
// whatever the number of changes. If no entry differs afterwards, the root is old.
func EditDir(ctx context.Context, s Store, names secret.Key, old link.Link, changes []Change) (link.Link, error) {
	edits, err := editsOf(ctx, s, names, changes)
	if err != nil {
		return link.Link{}, fmt.Errorf("edit directory: %w", err)
	}
	d, err := loadDir(ctx, s, old)
	if err != nil {
		return link.Link{}, fmt.Errorf("edit directory: %w", err)
	}
	var root link.Link
	e := newDirEditor(s)
	err = e.hamt.pre.within(ctx, func(ctx context.Context) (err error) {
		root, err = e.apply(ctx, old, d, edits)
		return err
	})
	if err != nil {
		return link.Link{}, fmt.Errorf("edit directory: %w", err)
	}
	return root, nil
}

// editsOf turns changes into edits, sorted, one a name.
func editsOf(ctx context.Context, p Putter, names secret.Key, changes []Change) ([]edit, error) {
	last := make(map[string]int, len(changes))
	for i := range changes {
		if err := checkName(changes[i].Name); err != nil {
			return nil, err
		}
		last[changes[i].Name] = i
	}
	namer := newNamer(names)
	edits := make([]edit, 0, len(last))
	for i := range changes {
		c := &changes[i]
		if last[c.Name] != i {
			continue
		}
		e := entry{name: namer.stored(c.Name)}
		if c.Record != nil {
			var err error
			if e, err = putEntry(ctx, p, e.name, c.Record); err != nil {
				return nil, fmt.Errorf("entry %q: %w", c.Name, err)
			}
		}
		edits = append(edits, edit{murmur(e.name), e})
	}
	slices.SortFunc(edits, compareEdits)
	return edits, nil
}

// compareEdits orders by hash, then name.
func compareEdits(a, b edit) int {
	return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.entry.name, b.entry.name))
}

// dir is the root of a directory: entries if it is plain, slots if it is sharded.
// The empty one has neither.
type dir struct {
	entries []entry
	slots   []slot
}

// loadDir reads the root of a directory.
func loadDir(ctx context.Context, g Getter, root link.Link) (dir, error) {
	if root.IsZero() {
		return dir{}, nil
	}
	if root.Codec != link.DagPB {
		return dir{}, corrupt("%v: directory with the codec %#x", root, root.Codec)
	}
	plain, err := g.Get(ctx, root)
	if err != nil {
		return dir{}, fmt.Errorf("get directory: %w", err)
	}
	d, err := decodeDir(plain)
	if err != nil {
		return dir{}, fmt.Errorf("%v: %w", root, err)
	}
	return d, nil
}

// decodeDir decodes the root of a directory.
func decodeDir(plain []byte) (dir, error) {
	node, err := decodePB(plain)
	if err != nil {
		return dir{}, err
	}
	switch unixfsType(node.data) {
	case unixfsDirectory:
		entries, err := entriesOf(&node)
		return dir{entries: entries}, err
	case unixfsHAMT:
		slots, err := slotsOf(place{}, &node)
		return dir{slots: slots}, err
	}
	return dir{}, corrupt("block is no directory")
}

// entriesOf decodes a plain directory, whose entries are sorted by stored name.
func entriesOf(node *pbNode) ([]entry, error) {
	if !bytes.Equal(node.data, dirData) || len(node.links) == 0 {
		return nil, corrupt("directory of %d entries with a header of %d bytes", len(node.links), len(node.data))
	}
	entries := make([]entry, len(node.links))
	for i := range entries {
		l := &node.links[i]
		e, err := decodeEntry(l.name, l)
		if err != nil {
			return nil, err
		}
		if i > 0 && entries[i-1].name == e.name {
			return nil, corrupt("directory has two entries of one name")
		}
		entries[i] = e
	}
	return entries, nil
}

// dirNode is the node of a plain directory.
func dirNode(entries []entry) pbNode {
	n := pbNode{links: make([]pbLink, len(entries)), data: dirData}
	for i := range entries {
		e := &entries[i]
		n.links[i] = pbLink{cid: e.cid, name: e.name, tsize: e.tsize}
	}
	return n
}

// putDirNode writes a node of a directory, and returns its cumulative size too.
func putDirNode(ctx context.Context, p Putter, n pbNode) (link.Link, uint64, error) {
	var refs refSet
	for i := range n.links {
		l, err := linkedBlock(n.links[i].cid)
		if err != nil {
			return link.Link{}, 0, err
		}
		refs.add(l)
	}
	plain := n.encode()
	l, err := p.Put(ctx, link.DagPB, plain, refs.links)
	if err != nil {
		return link.Link{}, 0, fmt.Errorf("put directory: %w", err)
	}
	return l, n.tsizes() + uint64(len(plain)), nil
}

// dirEditor applies edits to a directory of either form.
type dirEditor struct{ hamt hamtEditor }

func newDirEditor(s Store) dirEditor {
	pre := newPrefetcher()
	return dirEditor{hamtEditor{put: s, get: pre.bound(s), pre: pre}}
}

func (e *dirEditor) apply(ctx context.Context, old link.Link, d dir, edits []edit) (link.Link, error) {
	if d.slots == nil {
		return e.applyPlain(ctx, old, d.entries, edits)
	}
	slots, err := e.hamt.apply(ctx, e.hamt.plan(ctx, place{}, d.slots, edits))
	if err != nil {
		return link.Link{}, err
	}
	if slices.EqualFunc(slots, d.slots, sameSlot) {
		return old, nil
	}
	if entries, ok := plainAgain(slots); ok {
		return e.putPlain(ctx, entries)
	}
	return e.putRoot(ctx, slots)
}

// plainAgain returns the entries of a HAMT that is to become a plain directory.
func plainAgain(slots []slot) ([]entry, bool) {
	entries := make([]entry, 0, len(slots))
	for i := range slots {
		if slots[i].isShard() {
			return nil, false
		}
		entries = append(entries, slots[i].entry)
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	n := dirNode(entries)
	return entries, n.size() <= minShardedDir
}

// applyPlain edits a plain or empty directory, which may become a HAMT by it.
func (e *dirEditor) applyPlain(ctx context.Context, old link.Link, entries []entry, edits []edit) (link.Link, error) {
	after := mergeEntries(entries, edits)
	same := func(a, b entry) bool { return a.name == b.name && a.same(&b) }
	if slices.EqualFunc(after, entries, same) {
		return old, nil
	}
	if n := dirNode(after); n.size() <= maxPlainDir {
		return e.putPlain(ctx, after)
	}
	all := make([]edit, len(after))
	for i := range after {
		all[i] = edit{murmur(after[i].name), after[i]}
	}
	slices.SortFunc(all, compareEdits)
	slots, err := e.hamt.build(ctx, place{}, all)
	if err != nil {
		return link.Link{}, err
	}
	return e.putRoot(ctx, slots)
}

// mergeEntries applies edits to entries sorted by name; the result is so too.
func mergeEntries(entries []entry, edits []edit) []entry {
	changed := make(map[string]*edit, len(edits))
	out := make([]entry, 0, len(entries)+len(edits))
	for i := range edits {
		e := &edits[i]
		changed[e.entry.name] = e
		if !e.removes() {
			out = append(out, e.entry)
		}
	}
	for _, e := range entries {
		if changed[e.name] == nil {
			out = append(out, e)
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.name, b.name) })
	return out
}

func (e *dirEditor) putPlain(ctx context.Context, entries []entry) (link.Link, error) {
	if len(entries) == 0 {
		return link.Link{}, nil
	}
	l, _, err := putDirNode(ctx, e.hamt.put, dirNode(entries))
	return l, err
}

func (e *dirEditor) putRoot(ctx context.Context, slots []slot) (link.Link, error) {
	l, _, err := putDirNode(ctx, e.hamt.put, shardNode(slots))
	return l, err
}

// LookupDir returns the record of an entry; ok is false if there is none. It reads
// only the nodes on the way.
func LookupDir(ctx context.Context, g Getter, names secret.Key, root link.Link, name string) (rec Inode, ok bool, err error) {
	if err := checkName(name); err != nil {
		return Inode{}, false, fmt.Errorf("look up in directory: %w", err)
	}
	e, err := findEntry(ctx, g, root, newNamer(names).stored(name))
	if err != nil {
		return Inode{}, false, fmt.Errorf("look up in directory: %w", err)
	}
	if e == nil {
		return Inode{}, false, nil
	}
	rec, err = e.inode(ctx, g)
	if err != nil {
		return Inode{}, false, fmt.Errorf("look up in directory: %q: %w", name, err)
	}
	return rec, true, nil
}

// ReachEntry reads the nodes of a directory on the way to an entry, whether or not it
// is there: a change of it needs no others.
func ReachEntry(ctx context.Context, g Getter, names secret.Key, root link.Link, name string) error {
	err := checkName(name)
	if err == nil {
		_, err = findEntry(ctx, g, root, newNamer(names).stored(name))
	}
	if err != nil {
		return fmt.Errorf("reach in directory: %w", err)
	}
	return nil
}

// findEntry returns the entry with a stored name, or nil.
func findEntry(ctx context.Context, g Getter, root link.Link, stored string) (*entry, error) {
	d, err := loadDir(ctx, g, root)
	if err != nil {
		return nil, err
	}
	if d.slots != nil {
		return findInShards(ctx, g, d.slots, stored)
	}
	at, ok := slices.BinarySearchFunc(d.entries, stored, func(e entry, n string) int { return strings.Compare(e.name, n) })
	if !ok {
		return nil, nil
	}
	return &d.entries[at], nil
}

// findInShards follows the hash of a stored name from the root shard down.
func findInShards(ctx context.Context, g Getter, slots []slot, stored string) (*entry, error) {
	hash := murmur(stored)
	for p := (place{}); ; {
		s := slotIn(slots, slotAt(hash, p.depth))
		switch {
		case s == nil || !s.isShard() && s.entry.name != stored:
			return nil, nil
		case !s.isShard():
			return &s.entry, nil
		}
		var err error
		if slots, err = loadShard(ctx, g, p, s); err != nil {
			return nil, err
		}
		p = p.below(s.index)
	}
}

// WalkDir calls fn for every entry of a directory, on the caller's goroutine and in
// an order that depends on the directory alone, while up to 16 of the blocks ahead
// are asked for. It ends with the first error, of fn too. Whether a name lies where
// LookupDir looks for it cannot be told without the key of the names: in a
// directory that a faulty writer made, a name may come twice.
func WalkDir(ctx context.Context, g Getter, root link.Link, fn func(name string, rec Inode) error) error {
	d, err := loadDir(ctx, g, root)
	if err != nil {
		return fmt.Errorf("walk directory: %w", err)
	}
	slots := d.slots
	for _, e := range d.entries {
		slots = append(slots, slot{entry: e})
	}
	pre := newPrefetcher()
	w := dirWalker{pre.bound(g), pre, fn}
	return pre.within(ctx, func(ctx context.Context) error {
		return w.walk(ctx, w.open(ctx, place{}, slots))
	})
}

// dirWalker is one WalkDir.
type dirWalker struct {
	get Getter
	pre *prefetcher
	fn  func(name string, rec Inode) error
}

// shardWalk is a shard to be walked. The blocks below it are being fetched.
type shardWalk struct {
	slots []slot
	below queue[fetched] // for each slot
}

// fetched is what a slot led to: a record or a shard.
type fetched struct {
	rec   Inode
	shard *shardWalk
}

// open prepares the walk of the shard at p, which has these slots.
func (w *dirWalker) open(ctx context.Context, p place, slots []slot) *shardWalk {
	s := &shardWalk{slots: slots}
	s.below = queue[fetched]{
		p:     w.pre,
		n:     len(slots),
		needs: func(i int) bool { return slots[i].isShard() || !slots[i].entry.inline() },
		fetch: func(ctx context.Context, i int) (fetched, error) { return w.fetch(ctx, p, &slots[i]) },
	}
	s.below.begin(ctx)
	return s
}

// fetch reads what a slot of the shard at p leads to.
func (w *dirWalker) fetch(ctx context.Context, p place, s *slot) (fetched, error) {
	if !s.isShard() {
		rec, err := s.entry.inode(ctx, w.get)
		return fetched{rec: rec}, w.failed(s, err)
	}
	slots, err := loadShard(ctx, w.get, p, s)
	if err != nil {
		return fetched{}, w.failed(s, err)
	}
	return fetched{shard: w.open(ctx, p.below(s.index), slots)}, nil
}

// walk visits the slots of a shard in order.
func (w *dirWalker) walk(ctx context.Context, s *shardWalk) error {
	for i := range s.slots {
		f, err := s.below.take(ctx, i)
		if err != nil {
			return err
		}
		if f.shard != nil {
			err = w.walk(ctx, f.shard)
		} else {
			err = w.visit(ctx, &s.slots[i], f.rec)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// visit calls fn for an entry, whose record was fetched if it is not inline.
func (w *dirWalker) visit(ctx context.Context, s *slot, rec Inode) error {
	if s.entry.inline() {
		var err error
		if rec, err = s.entry.inode(ctx, w.get); err != nil {
			return w.failed(s, err)
		}
	}
	name, err := realName(s.entry.name)
	if err != nil {
		return w.failed(s, err)
	}
	return w.fn(name, rec)
}

// failed says where err occurred, if it is one.
func (w *dirWalker) failed(s *slot, err error) error {
	switch {
	case err == nil:
		return nil
	case s.isShard():
		return fmt.Errorf("walk directory: %w", err)
	}
	return fmt.Errorf("walk directory: %q: %w", s.entry.name[prefixLen:], err)
}
