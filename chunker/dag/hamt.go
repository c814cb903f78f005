package dag

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"skep/chunker/link"
)

// A shard of a HAMT has up to 256 slots. A slot holds the one entry whose hash
// leads there or, where several do, the shard with all of these.

// slot is an occupied slot. If shard is zero, it holds entry; otherwise the shard,
// with its cumulative size in entry.tsize.
type slot struct {
	index uint8
	shard link.Link
	entry entry
}

func (s *slot) isShard() bool { return !s.shard.IsZero() }

const hexDigits = "0123456789ABCDEF"

// shardNode is the node of these slots, which are in order.
func shardNode(slots []slot) pbNode {
	n := pbNode{links: make([]pbLink, len(slots)), data: hamtData(slots)}
	for i := range slots {
		s := &slots[i]
		prefix := string([]byte{hexDigits[s.index>>4], hexDigits[s.index&15]})
		n.links[i] = pbLink{cid: s.entry.cid, name: prefix + s.entry.name, tsize: s.entry.tsize}
		if s.isShard() {
			n.links[i].cid = cidOf(s.shard)
		}
	}
	return n
}

// place is where a shard hangs: its depth, and the bits of the hash that lead
// there, at the top of path.
type place struct {
	depth int
	path  uint64
}

// below is the place of the shard in a slot.
func (p place) below(index uint8) place {
	return place{p.depth + 1, p.path | uint64(index)<<(56-8*p.depth)}
}

// holds reports whether an entry with this hash belongs below p.
func (p place) holds(hash uint64) bool {
	return p.depth == 0 || (hash^p.path)>>(64-8*p.depth) == 0
}

// maxShardTsize bounds the cumulative size of a shard, so that no sum overflows.
const maxShardTsize = 1 << 52

// slotsOf decodes the node of the shard at p.
func slotsOf(p place, node *pbNode) ([]slot, error) {
	if len(node.links) == 0 || len(node.links) > hamtWidth {
		return nil, corrupt("shard has %d links", len(node.links))
	}
	slots := make([]slot, len(node.links))
	for i := range slots {
		s, err := slotOf(p, &node.links[i])
		if err != nil {
			return nil, err
		}
		if i > 0 && slots[i-1].index >= s.index {
			return nil, corrupt("shard has two links in slot %d", s.index)
		}
		slots[i] = s
	}
	if !bytes.Equal(node.data, hamtData(slots)) {
		return nil, corrupt("shard has a header that does not fit its links")
	}
	if p.depth > 0 && len(slots) == 1 && !slots[0].isShard() {
		return nil, corrupt("shard has a single entry")
	}
	return slots, nil
}

func slotOf(p place, l *pbLink) (slot, error) {
	if len(l.name) < 2 {
		return slot{}, corrupt("shard has a link without a slot")
	}
	hi, lo := bytes.IndexByte([]byte(hexDigits), l.name[0]), bytes.IndexByte([]byte(hexDigits), l.name[1])
	if hi < 0 || lo < 0 {
		return slot{}, corrupt("shard has a link without a slot")
	}
	s := slot{index: uint8(hi<<4 | lo)}
	if len(l.name) == 2 {
		return shardSlot(p, s, l)
	}
	e, err := decodeEntry(l.name[2:], l)
	if err != nil {
		return slot{}, err
	}
	if hash := murmur(e.name); !p.holds(hash) || slotAt(hash, p.depth) != s.index {
		return slot{}, corrupt("shard has an entry that belongs elsewhere")
	}
	s.entry = e
	return s, nil
}

func shardSlot(p place, s slot, l *pbLink) (slot, error) {
	sealed, err := sealedCID(l.cid)
	if err != nil {
		return slot{}, err
	}
	if sealed.Codec != link.DagPB || l.tsize > maxShardTsize || p.depth+1 >= maxDepth {
		return slot{}, corrupt("shard has a link that is no shard")
	}
	s.shard, s.entry.tsize = sealed, l.tsize
	return s, nil
}

// loadShard reads the shard in slot s of the shard at p.
func loadShard(ctx context.Context, g Getter, p place, s *slot) ([]slot, error) {
	plain, err := g.Get(ctx, s.shard)
	if err != nil {
		return nil, fmt.Errorf("get directory shard: %w", err)
	}
	slots, err := decodeShard(p.below(s.index), s.entry.tsize, plain)
	if err != nil {
		return nil, fmt.Errorf("%v: %w", s.shard, err)
	}
	return slots, nil
}

// decodeShard decodes the shard at p whose link claims this cumulative size.
func decodeShard(p place, tsize uint64, plain []byte) ([]slot, error) {
	node, err := decodePB(plain)
	if err != nil {
		return nil, err
	}
	slots, err := slotsOf(p, &node)
	if err != nil {
		return nil, err
	}
	if total := node.tsizes() + uint64(len(plain)); total != tsize {
		return nil, corrupt("shard has %d bytes below it, its link says %d", total, tsize)
	}
	return slots, nil
}

// edit is a change of one entry. The entry of a removal has a name alone.
type edit struct {
	hash  uint64
	entry entry
}

func (e *edit) removes() bool { return e.entry.cid == nil }

// hamtEditor applies edits to a HAMT.
type hamtEditor struct {
	put Putter
	get Getter
	pre *prefetcher
}

// shardEdit is a shard and the edits below it, sorted by hash and name. What it
// needs of the shards below is being fetched.
type shardEdit struct {
	at     place
	slots  []slot
	groups []group
	below  queue[*shardEdit] // for each group
}

// plan prepares the edits below the shard at p, which has these slots.
func (h *hamtEditor) plan(ctx context.Context, p place, slots []slot, edits []edit) *shardEdit {
	s := &shardEdit{at: p, slots: slots, groups: groupEdits(p, slots, edits)}
	s.below = queue[*shardEdit]{
		p:     h.pre,
		n:     len(s.groups),
		needs: func(i int) bool { return s.groups[i].inShard() },
		fetch: func(ctx context.Context, i int) (*shardEdit, error) {
			g := &s.groups[i]
			below, err := loadShard(ctx, h.get, p, g.old)
			if err != nil {
				return nil, err
			}
			return h.plan(ctx, p.below(g.index), below, g.edits), nil
		},
	}
	s.below.begin(ctx)
	return s
}

// apply returns the slots of the shard after the edits. The old ones stay as they
// are.
func (h *hamtEditor) apply(ctx context.Context, s *shardEdit) ([]slot, error) {
	out := make([]slot, 0, len(s.slots)+len(s.groups))
	rest := s.slots
	for i := range s.groups {
		g := &s.groups[i]
		for len(rest) > 0 && rest[0].index < g.index {
			out = append(out, rest[0])
			rest = rest[1:]
		}
		if g.old != nil {
			rest = rest[1:]
		}
		below, err := s.below.take(ctx, i)
		if err != nil {
			return nil, err
		}
		after, ok, err := h.applyGroup(ctx, s.at, g, below)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, after)
		}
	}
	return append(out, rest...), nil
}

// group is the edits that fall into one slot of a shard.
type group struct {
	index uint8
	old   *slot // nil if it is free
	edits []edit
}

// inShard reports whether the slot held a shard.
func (g *group) inShard() bool { return g.old != nil && g.old.isShard() }

// groupEdits sorts edits, which belong below p, by the slots of the shard at p.
func groupEdits(p place, slots []slot, edits []edit) []group {
	var groups []group
	for len(edits) > 0 {
		index := slotAt(edits[0].hash, p.depth)
		n := 1
		for n < len(edits) && slotAt(edits[n].hash, p.depth) == index {
			n++
		}
		groups = append(groups, group{index, slotIn(slots, index), edits[:n]})
		edits = edits[n:]
	}
	return groups
}

// slotIn returns the slot with an index, or nil if it is free.
func slotIn(slots []slot, index uint8) *slot {
	at, ok := slices.BinarySearchFunc(slots, index, func(s slot, x uint8) int { return int(s.index) - int(x) })
	if !ok {
		return nil
	}
	return &slots[at]
}

// applyGroup returns what a slot holds after the edits of g; ok is false if it is
// free then. Below is the shard that it held, if it held one.
func (h *hamtEditor) applyGroup(ctx context.Context, p place, g *group, below *shardEdit) (s slot, ok bool, err error) {
	if !g.inShard() {
		return h.fill(ctx, p, g.index, mergeOne(g.old, g.edits))
	}
	after, err := h.apply(ctx, below)
	if err != nil {
		return slot{}, false, err
	}
	if slices.EqualFunc(after, below.slots, sameSlot) {
		return *g.old, true, nil
	}
	switch {
	case len(after) == 0:
		return slot{}, false, nil
	case len(after) == 1 && !after[0].isShard():
		return slot{index: g.index, entry: after[0].entry}, true, nil
	}
	s, err = h.putShard(ctx, g.index, after)
	return s, err == nil, err
}

func sameSlot(a, b slot) bool {
	return a.index == b.index && a.shard == b.shard && a.entry.name == b.entry.name && a.entry.same(&b.entry)
}

// mergeOne applies edits to a slot that is free or holds one entry; what comes of
// it is sorted as edits are, and removes nothing.
func mergeOne(old *slot, edits []edit) []edit {
	out := make([]edit, 0, len(edits)+1)
	if old != nil {
		e := edit{hash: murmur(old.entry.name), entry: old.entry}
		if at, ok := slices.BinarySearchFunc(edits, e, compareEdits); !ok {
			out = append(out, edits[:at]...)
			out = append(out, e)
			edits = edits[at:]
		}
	}
	out = append(out, edits...)
	return slices.DeleteFunc(out, func(e edit) bool { return e.removes() })
}

// fill makes the slot that holds these entries, sorted by hash and name: none, one
// or a shard.
func (h *hamtEditor) fill(ctx context.Context, p place, index uint8, entries []edit) (s slot, ok bool, err error) {
	switch len(entries) {
	case 0:
		return slot{}, false, nil
	case 1:
		return slot{index: index, entry: entries[0].entry}, true, nil
	}
	if p.depth+1 >= maxDepth {
		return slot{}, false, ErrTooDeep
	}
	slots, err := h.build(ctx, p.below(index), entries)
	if err != nil {
		return slot{}, false, err
	}
	s, err = h.putShard(ctx, index, slots)
	return s, err == nil, err
}

// build returns the slots of a new shard at p with these entries.
func (h *hamtEditor) build(ctx context.Context, p place, entries []edit) ([]slot, error) {
	groups := groupEdits(p, nil, entries)
	slots := make([]slot, 0, len(groups))
	for i := range groups {
		s, ok, err := h.fill(ctx, p, groups[i].index, groups[i].edits)
		if err != nil {
			return nil, err
		}
		if ok {
			slots = append(slots, s)
		}
	}
	return slots, nil
}

// putShard writes a shard and returns the slot that holds it.
func (h *hamtEditor) putShard(ctx context.Context, index uint8, slots []slot) (slot, error) {
	l, tsize, err := putDirNode(ctx, h.put, shardNode(slots))
	if err != nil {
		return slot{}, err
	}
	return slot{index: index, shard: l, entry: entry{tsize: tsize}}, nil
}
