package blocks

import (
	"errors"
	"fmt"
	"slices"

	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
)

// tableMember lists the blocks of a pack: group, number, hash.
const tableMember = 'y'

// Stored is a block of a new pack, with the blocks that it refers to.
type Stored struct {
	pack.Entry
	Refs []link.Link
}

// MaxRefs is how many references the blocks of one pack may have in all: what
// AddPack enters at once is one record of the journal, and a reference may alter
// two rows.
const MaxRefs = 1 << 14

// AddPack enters a pack that enough holders have acknowledged, with its blocks,
// which have at most MaxRefs references. Of those that are needed, and elsewhere already,
// this is the home from then on: see Moved.
// by are the holders of the group's slots that were asked to take it, nil for those that it
// has now: what was acknowledged in a slot that was moved since does not count.
func (t *Table) AddPack(p Pack, by []group.PeerKey, stored []Stored) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	g, _, err := t.Group(p.Group)
	if err != nil {
		return err
	}
	for i, holder := range by {
		if i < len(g.Slots) && g.Slots[i] != holder {
			p.Acked.Remove(i)
		}
	}
	p.Blocks, p.Total, p.Live = uint32(len(stored)), 0, 0
	for _, s := range stored {
		p.Total += uint64(s.Length)
	}
	c.packs[string(packKey(p.Group, p.Number))] = &p
	c.b.Put(watchKey(p.Group, p.Number), nil) // nothing refers to its blocks yet
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
		if len(b.Places) > 0 {
			c.t.putMoved(&c.b)
		}
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

// Leave makes another pack that has them the home of the blocks of a pack that are needed,
// where one that is in the account and not dead, and of which lost says nothing, has them,
// too: a device that joined the drive finds what is stored twice, and does not know which
// place is the good one. A commit has to tell then: see Moved. It reports whether there
// were any; none while references are counted anew.
func (t *Table) Leave(id group.ID, n uint16, lost func(blockindex.Place) bool) (some bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil || c.counting {
		return false, err
	}
	members, err := t.Members(id, n)
	if err != nil {
		return false, err
	}
	for _, m := range members {
		if m.Refs == 0 || len(m.Places) < 2 {
			continue
		}
		home := m.Places[0]
		var bad error
		i := slices.IndexFunc(m.Places, func(p blockindex.Place) bool {
			dead, err := c.isDead(p)
			row, rerr := c.pack(p)
			bad = errors.Join(bad, err, rerr)
			return !dead && row != nil && !lost(p)
		})
		if bad != nil {
			return false, bad
		}
		if home.Group != id || home.Number != n || i <= 0 {
			continue
		}
		b, err := c.block(m.Link)
		if err != nil {
			return false, err
		}
		if err := c.credit(b, false); err != nil {
			return false, err
		}
		b.Places[0], b.Places[i] = b.Places[i], b.Places[0]
		if err := c.credit(b, true); err != nil {
			return false, err
		}
		c.b.Put(hashKey(tableNew, m.Link.Hash), nil)
		c.t.putMoved(&c.b)
		some = true
	}
	return some, c.apply()
}

func memberKey(p blockindex.Place, h link.Hash) []byte {
	return append(membersOf(p.Group, p.Number), h[:]...)
}

// membersOf is what the keys of all blocks of a pack begin with.
func membersOf(id group.ID, n uint16) []byte {
	k := packKey(id, n)
	k[0] = tableMember
	return k
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
	b.Freeing()
	b.Put(packKey(id, n), p.encode())
	_, err = t.st.Apply(&b)
	return err
}

// Members returns the blocks that lie in a pack.
func (t *Table) Members(id group.ID, n uint16) ([]Block, error) {
	start := membersOf(id, n)
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
	t.mu.Lock()
	defer t.mu.Unlock()
	members, err := t.Members(id, n) // nobody changes them meanwhile
	if err != nil {
		return err
	}
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
	b.Delete(watchKey(id, n))
	_, err = t.st.Apply(&b)
	return err
}
