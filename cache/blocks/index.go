package blocks

import (
	"errors"
	"slices"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
)

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

// Entries returns the index entries of all blocks, sorted.
func (t *Table) Entries() ([]blockindex.Entry, error) {
	var out []blockindex.Entry
	var bad error
	err := t.st.Scan([]byte{tableBlock}, []byte{tableBlock + 1}, func(_, v []byte) bool {
		var b Block
		b, bad = decodeBlock(v)
		for _, p := range b.Places {
			out = append(out, blockindex.Entry{Link: b.Link, Tag: b.Tag, Place: p})
		}
		return bad == nil
	})
	slices.SortFunc(out, blockindex.Compare) // by place, too
	return out, errors.Join(err, bad)
}

// Indexed says that these entries are in a segment of a published commit.
func (t *Table) Indexed(entries []blockindex.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Freeing()
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
// are known already keep what is known, and gain the place. Places in dead packs
// are passed over.
func (t *Table) Learn(entries []blockindex.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	for _, e := range entries {
		b, err := c.block(e.Link)
		if err != nil {
			return err
		}
		dead, err := c.isDead(e.Place)
		if err != nil {
			return err
		}
		if dead || hasPlace(b, e.Place) {
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

// isDead reports whether a place is in a pack that was declared dead, or in a
// group that was let go of.
func (c *change) isDead(p blockindex.Place) (bool, error) {
	dead, ok := c.dead[p.Group]
	if !ok {
		g, known, err := c.t.Group(p.Group)
		if err != nil {
			return false, err
		}
		dead = g.Dead
		if !known {
			dead = group.AllPacks
		}
		c.dead[p.Group] = dead
	}
	return dead.Has(p.Number), nil
}

func hasPlace(b *Block, p blockindex.Place) bool {
	for _, q := range b.Places {
		if q.Group == p.Group && q.Number == p.Number {
			return true
		}
	}
	return false
}
