// Package blocks is the account of what the drive has stored: every block with
// its places and the references to it, every pack with its live bytes and the
// slots that acknowledged it, every group.
//
// A block's count is the number of references from blocks that are stored
// themselves; the newest commit counts one. A block enters with its pack, and
// its children are counted then. What nothing refers to when a commit has been
// published, and what loses its last reference, is dropped step by step, so
// that no step is as large as what was deleted. A pack whose live bytes come to
// nothing is dead.
//
// Of a block that lies in several places the newest is its home: there its
// bytes are live.
package blocks

import (
	"fmt"
	"sync"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/record"
)

// tableMember lists the blocks of a pack: group, number, hash.
const tableMember = 'y'

// Table is the account, on tables that others share. It is safe for concurrent
// use; changes are one after the other.
type Table struct {
	st *state.Store
	mu sync.Mutex // held during a change
}

// New returns the account that lies in st.
func New(st *state.Store) *Table { return &Table{st: st} }

// Stored is a block of a new pack, with the blocks that it refers to.
type Stored struct {
	pack.Entry
	Refs []link.Link
}

// Get returns what is known of a block.
func (t *Table) Get(h link.Hash) (Block, bool, error) {
	b, ok, err := t.st.Get(hashKey(tableBlock, h))
	if !ok || err != nil {
		return Block{}, false, err
	}
	row, err := decodeBlock(b)
	return row, err == nil, err
}

// Find returns the block with a tag that a commit may refer to again: one that
// something refers to, or that was stored since the newest commit.
func (t *Table) Find(tag block.Tag) (link.Link, bool, error) {
	h, ok, err := t.st.Get(tagKey(tag))
	if !ok || err != nil || len(h) != 32 {
		return link.Link{}, false, err
	}
	b, ok, err := t.Get(link.Hash(h))
	if !ok || err != nil || b.Tag != tag || len(b.Places) == 0 {
		return link.Link{}, false, err
	}
	if b.Refs == 0 {
		if _, fresh, err := t.st.Get(hashKey(tableOrphan, b.Link.Hash)); err != nil || !fresh {
			return link.Link{}, false, err
		}
	}
	return b.Link, true, nil
}

// change gathers the rows that one step alters.
type change struct {
	t      *Table
	b      state.Batch
	blocks map[link.Hash]*Block
	packs  map[string]*Pack
}

func (t *Table) begin() *change {
	return &change{t: t, blocks: map[link.Hash]*Block{}, packs: map[string]*Pack{}}
}

// block returns a block's row to be altered, an empty one if there is none.
func (c *change) block(l link.Link) (*Block, error) {
	if b, ok := c.blocks[l.Hash]; ok {
		return b, nil
	}
	b, ok, err := c.t.Get(l.Hash)
	if err != nil {
		return nil, err
	}
	if !ok {
		b = Block{Link: l}
	}
	c.blocks[l.Hash] = &b
	return &b, nil
}

// pack returns a pack's row to be altered; nil if there is none.
func (c *change) pack(p blockindex.Place) (*Pack, error) {
	k := string(packKey(p.Group, p.Number))
	if row, ok := c.packs[k]; ok {
		return row, nil
	}
	v, ok, err := c.t.st.Get([]byte(k))
	if !ok || err != nil {
		return nil, err
	}
	row, err := decodePack([]byte(k), v)
	if err != nil {
		return nil, err
	}
	c.packs[k] = &row
	return &row, nil
}

// apply writes all altered rows in one batch.
func (c *change) apply() error {
	for h, b := range c.blocks {
		c.b.Put(hashKey(tableBlock, h), b.encode())
	}
	for k, p := range c.packs {
		c.b.Put([]byte(k), p.encode())
	}
	if c.b.Len() == 0 {
		return nil
	}
	_, err := c.t.st.Apply(&c.b)
	return err
}

// credit adds to, or takes from, the live bytes of a block's home.
func (c *change) credit(b *Block, add bool) error {
	if len(b.Places) == 0 {
		return nil
	}
	p, err := c.pack(b.Places[0])
	if p == nil || err != nil {
		return err
	}
	if n := uint64(b.Places[0].Length); add {
		p.Live += n
	} else {
		p.Live -= min(n, p.Live)
	}
	return nil
}

// refer counts one more reference to a block.
func (c *change) refer(l link.Link) error {
	b, err := c.block(l)
	if err != nil {
		return err
	}
	b.Refs++
	if b.Refs > 1 {
		return nil
	}
	c.b.Delete(hashKey(tableOrphan, l.Hash))
	return c.credit(b, true)
}

// drop counts one reference less. The children of a block that has none left
// are visited later.
func (c *change) drop(l link.Link) error {
	b, err := c.block(l)
	if err != nil {
		return err
	}
	if b.Refs == 0 {
		return nil // never counted: what referred to it came from elsewhere
	}
	b.Refs--
	if b.Refs > 0 {
		return nil
	}
	if b.Expanded {
		c.b.Put(hashKey(tableDropped, l.Hash), nil)
	}
	return c.credit(b, false)
}

// AddPack enters a pack that enough holders have acknowledged, with its blocks.
func (t *Table) AddPack(p Pack, stored []Stored) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.begin()
	p.Blocks, p.Total, p.Live = uint32(len(stored)), 0, 0
	for _, s := range stored {
		p.Total += uint64(s.Length)
	}
	c.packs[string(packKey(p.Group, p.Number))] = &p
	for _, s := range stored {
		if err := c.store(p, s); err != nil {
			return fmt.Errorf("pack %d of group %v: %w", p.Number, p.Group, err)
		}
	}
	return c.apply()
}

func (c *change) store(p Pack, s Stored) error {
	b, err := c.block(s.Link)
	if err != nil {
		return err
	}
	place := blockindex.Place{Group: p.Group, Number: p.Number, Offset: s.Offset, Length: s.Length}
	if b.Refs > 0 {
		if err := c.credit(b, false); err != nil {
			return err
		}
	}
	b.Link, b.Tag = s.Link, s.Tag
	b.Places = append([]blockindex.Place{place}, b.Places...)
	c.b.Put(memberKey(place, s.Link.Hash), nil)
	c.b.Put(tagKey(s.Tag), s.Link.Hash[:])
	c.b.Put(hashKey(tableNew, s.Link.Hash), nil)
	c.b.Delete(hashKey(tableDropped, s.Link.Hash))
	if b.Refs > 0 {
		if err := c.credit(b, true); err != nil {
			return err
		}
	} else {
		c.b.Put(hashKey(tableOrphan, s.Link.Hash), nil)
	}
	if b.Expanded {
		return nil
	}
	b.Expanded = len(s.Refs) > 0
	for _, r := range s.Refs {
		if err := c.refer(r); err != nil {
			return err
		}
	}
	return nil
}

func memberKey(p blockindex.Place, h link.Hash) []byte {
	k := packKey(p.Group, p.Number)
	k[0] = tableMember
	return append(k, h[:]...)
}

// Publish moves the one reference that a commit counts from the old to the new
// one; either may be the zero link.
func (t *Table) Publish(now, before link.Link) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now == before {
		return nil
	}
	c := t.begin()
	if !now.IsZero() {
		if err := c.refer(now); err != nil {
			return err
		}
	}
	if !before.IsZero() {
		if err := c.drop(before); err != nil {
			return err
		}
	}
	return c.apply()
}

// Children returns the blocks that a block refers to, by reading it.
type Children func(l link.Link) ([]link.Link, error)

// Reclaim drops up to n blocks that nothing refers to, counting their
// children's references down. It reports whether there is more to do. No
// commit may be under way: what that has stored is not referred to yet.
func (t *Table) Reclaim(n int, children Children) (more bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.begin()
	orphans, err := t.some(tableOrphan, n)
	if err != nil {
		return false, err
	}
	for _, h := range orphans {
		if err := c.settleOrphan(h); err != nil {
			return false, err
		}
	}
	if err := c.apply(); err != nil {
		return false, err
	}
	dropped, err := t.some(tableDropped, max(1, n-len(orphans)))
	if err != nil {
		return false, err
	}
	for _, h := range dropped {
		if err := t.expandDropped(h, children); err != nil {
			return false, err
		}
	}
	return len(orphans)+len(dropped) >= n || len(dropped) > 0, nil
}

// settleOrphan makes what was stored and never referred to a dropped block.
func (c *change) settleOrphan(h link.Hash) error {
	c.b.Delete(hashKey(tableOrphan, h))
	b, ok, err := c.t.Get(h)
	if err != nil || !ok || b.Refs > 0 {
		return err
	}
	if b.Expanded {
		c.b.Put(hashKey(tableDropped, h), nil)
	}
	return nil
}

// expandDropped visits the children of one dropped block.
func (t *Table) expandDropped(h link.Hash, children Children) error {
	c := t.begin()
	c.b.Delete(hashKey(tableDropped, h))
	b, ok, err := t.Get(h)
	if err != nil {
		return err
	}
	if ok && b.Refs == 0 && b.Expanded {
		kids, err := children(b.Link)
		if err != nil {
			return err
		}
		row, err := c.block(b.Link)
		if err != nil {
			return err
		}
		row.Expanded = false
		for _, k := range kids {
			if err := c.drop(k); err != nil {
				return err
			}
		}
	}
	return c.apply()
}

// some returns up to n hashes of a table.
func (t *Table) some(table byte, n int) ([]link.Hash, error) {
	var out []link.Hash
	err := t.st.Scan([]byte{table}, []byte{table + 1}, func(k, _ []byte) bool {
		if len(k) == 33 {
			out = append(out, link.Hash(k[1:]))
		}
		return len(out) < n
	})
	return out, err
}

// Group returns the account of a group.
func (t *Table) Group(id group.ID) (group.Group, bool, error) {
	v, ok, err := t.st.Get(groupKey(id))
	if !ok || err != nil {
		return group.Group{}, false, err
	}
	var g group.Group
	err = record.Decode(v, 1<<20, &g)
	return g, err == nil, err
}

// PutGroup enters or changes a group.
func (t *Table) PutGroup(g group.Group) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Put(groupKey(g.ID), record.Encode(g))
	_, err := t.st.Apply(&b)
	return err
}

// UpdateGroup changes a group's account by fn.
func (t *Table) UpdateGroup(id group.ID, fn func(*group.Group) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok, err := t.Group(id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("group %v is not in the table", id)
	}
	if err := fn(&g); err != nil {
		return err
	}
	var b state.Batch
	b.Put(groupKey(id), record.Encode(g))
	_, err = t.st.Apply(&b)
	return err
}

// Groups returns all groups, by id.
func (t *Table) Groups() ([]group.Group, error) {
	var out []group.Group
	var bad error
	err := t.st.Scan([]byte{tableGroup}, []byte{tableGroup + 1}, func(_, v []byte) bool {
		var g group.Group
		if bad = record.Decode(v, 1<<20, &g); bad != nil {
			return false
		}
		out = append(out, g)
		return true
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// Carry writes again what could not be had from elsewhere if the index were
// lost and the journal began now.
func (t *Table) Carry() error {
	all, err := t.Groups()
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	for _, g := range all {
		b.Put(groupKey(g.ID), record.Encode(g))
	}
	if b.Len() == 0 {
		return nil
	}
	_, err = t.st.Apply(&b)
	return err
}

// Pack returns the account of a pack.
func (t *Table) Pack(id group.ID, n uint16) (Pack, bool, error) {
	k := packKey(id, n)
	v, ok, err := t.st.Get(k)
	if !ok || err != nil {
		return Pack{}, false, err
	}
	p, err := decodePack(k, v)
	return p, err == nil, err
}

// Packs calls fn for every pack, group by group, until it returns false.
func (t *Table) Packs(fn func(Pack) bool) error {
	var bad error
	err := t.st.Scan([]byte{tablePack}, []byte{tablePack + 1}, func(k, v []byte) bool {
		p, err := decodePack(k, v)
		if bad = err; err != nil {
			return false
		}
		return fn(p)
	})
	if err == nil {
		err = bad
	}
	return err
}

// UpdatePack changes a pack's account by fn; a pack that is not there is left
// alone.
func (t *Table) UpdatePack(id group.ID, n uint16, fn func(*Pack)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	p, ok, err := t.Pack(id, n)
	if err != nil || !ok {
		return err
	}
	fn(&p)
	var b state.Batch
	b.Put(packKey(id, n), p.encode())
	_, err = t.st.Apply(&b)
	return err
}

// Members returns the blocks that lie in a pack.
func (t *Table) Members(id group.ID, n uint16) ([]Block, error) {
	start := memberKey(blockindex.Place{Group: id, Number: n}, link.Hash{})
	start = start[:1+32+2]
	var hashes []link.Hash
	err := t.st.Scan(start, state.PrefixEnd(start), func(k, _ []byte) bool {
		hashes = append(hashes, link.Hash(k[len(k)-32:]))
		return true
	})
	if err != nil {
		return nil, err
	}
	out := make([]Block, 0, len(hashes))
	for _, h := range hashes {
		b, ok, err := t.Get(h)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, b)
		}
	}
	return out, nil
}

// Bury takes a dead pack out of the account: its row, and its place in the rows
// of its blocks. A block that lies nowhere else and that nothing refers to is
// forgotten.
func (t *Table) Bury(id group.ID, n uint16) error {
	members, err := t.Members(id, n)
	if err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Freeing()
	for _, m := range members {
		place := blockindex.Place{Group: id, Number: n}
		b.Delete(memberKey(place, m.Link.Hash))
		keep := m.Places[:0]
		for _, p := range m.Places {
			if p.Group != id || p.Number != n {
				keep = append(keep, p)
			}
		}
		m.Places = keep
		if len(keep) > 0 || m.Refs > 0 {
			b.Put(hashKey(tableBlock, m.Link.Hash), m.encode())
			continue
		}
		b.Delete(hashKey(tableBlock, m.Link.Hash))
		b.Delete(hashKey(tableNew, m.Link.Hash))
		if h, ok, err := t.st.Get(tagKey(m.Tag)); err == nil && ok && link.Hash(h) == m.Link.Hash {
			b.Delete(tagKey(m.Tag))
		}
	}
	b.Delete(packKey(id, n))
	_, err = t.st.Apply(&b)
	return err
}

// NewEntries returns the index entries of the blocks that are in no segment
// yet, sorted.
func (t *Table) NewEntries() ([]blockindex.Entry, error) {
	hashes, err := t.some(tableNew, 1<<31)
	if err != nil {
		return nil, err
	}
	var out []blockindex.Entry
	for _, h := range hashes {
		b, ok, err := t.Get(h)
		if err != nil {
			return nil, err
		}
		if ok && len(b.Places) > 0 {
			out = append(out, blockindex.Entry{Link: b.Link, Tag: b.Tag, Place: b.Places[0]})
		}
	}
	return out, nil
}

// Indexed says that these entries are in a segment of a published commit.
func (t *Table) Indexed(entries []blockindex.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	for _, e := range entries {
		row, ok, err := t.Get(e.Link.Hash)
		if err != nil {
			return err
		}
		if ok && len(row.Places) > 0 && row.Places[0] == e.Place {
			b.Delete(hashKey(tableNew, e.Link.Hash))
		}
		if b.Size() > 1<<20 {
			if _, err := t.st.Apply(&b); err != nil {
				return err
			}
			b.Reset()
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := t.st.Apply(&b)
	return err
}

// Learn enters index entries that came from a commit's segments; blocks that
// are known already keep what is known, and gain the place.
func (t *Table) Learn(entries []blockindex.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.begin()
	for _, e := range entries {
		b, err := c.block(e.Link)
		if err != nil {
			return err
		}
		if hasPlace(b, e.Place) {
			continue
		}
		b.Link, b.Tag = e.Link, e.Tag
		b.Places = append(b.Places, e.Place)
		c.b.Put(memberKey(e.Place, e.Link.Hash), nil)
		if e.Tag != (block.Tag{}) {
			c.b.Put(tagKey(e.Tag), e.Link.Hash[:])
		}
		if err := c.learned(b, e); err != nil {
			return err
		}
	}
	return c.apply()
}

// learned brings a pack's row up to date with a block that was learned of.
func (c *change) learned(b *Block, e blockindex.Entry) error {
	p, err := c.pack(e.Place)
	if p == nil || err != nil {
		return err
	}
	p.Blocks++
	p.Total += uint64(e.Place.Length)
	if b.Refs > 0 && len(b.Places) == 1 { // it was counted before it had a place
		p.Live += uint64(e.Place.Length)
	}
	return nil
}

func hasPlace(b *Block, p blockindex.Place) bool {
	for _, q := range b.Places {
		if q.Group == p.Group && q.Number == p.Number {
			return true
		}
	}
	return false
}
