package blocks

import (
	"errors"
	"slices"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
)

// CountNew is how many blocks are in no segment of the index yet.
func (t *Table) CountNew() (n int, err error) {
	err = t.st.Scan([]byte{tableNew}, []byte{tableNew + 1}, func(_, _ []byte) bool {
		n++
		return true
	})
	return n, err
}

// NewEntries are the index entries of the blocks that are in no segment yet, sorted.
// The account may change while they are read.
func (t *Table) NewEntries() blockindex.Entries {
	return t.entries(tableNew, func(k, _ []byte) ([]blockindex.Entry, error) {
		b, ok, err := t.Get(link.Hash(k[1:]))
		if !ok || err != nil || len(b.Places) == 0 {
			return nil, err
		}
		return b.entries()[:1], nil
	})
}

// Entries are the index entries of all blocks, sorted. The account may change while
// they are read.
func (t *Table) Entries() blockindex.Entries {
	return t.entries(tableBlock, func(_, v []byte) ([]blockindex.Entry, error) {
		b, err := decodeBlock(v)
		all := b.entries()
		slices.SortFunc(all, blockindex.Compare) // by place
		return all, err
	})
}

// entries are those of one row of a table after the other.
func (t *Table) entries(table byte, of func(k, v []byte) ([]blockindex.Entry, error)) blockindex.Entries {
	return func(yield func(blockindex.Entry, error) bool) {
		var bad error
		err := t.st.Scan([]byte{table}, []byte{table + 1}, func(k, v []byte) bool {
			if len(k) != 33 {
				return true
			}
			all, err := of(k, v)
			if bad = err; err != nil {
				return false
			}
			for _, e := range all {
				if !yield(e, nil) {
					bad = errEnough
					return false
				}
			}
			return true
		})
		if err = errors.Join(err, bad); err != nil && !errors.Is(err, errEnough) {
			yield(blockindex.Entry{}, err)
		}
	}
}

var errEnough = errors.New("nobody wants more")

// entries are the index entries of a block, the newest first.
func (b *Block) entries() []blockindex.Entry {
	out := make([]blockindex.Entry, len(b.Places))
	for i, p := range b.Places {
		out[i] = blockindex.Entry{Link: b.Link, Tag: b.Tag, Place: p}
	}
	return out
}

// Indexed says that all NewEntries are in a segment of a published commit, but for
// those at places that are later. If something was moved of which the commit does not
// say, blocks of several places stay for the next one: another may be their home since.
func (t *Table) Indexed(later func(blockindex.Place) bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	moved, err := t.Moved()
	if err != nil {
		return err
	}
	var b state.Batch
	b.Freeing()
	for e, err := range t.NewEntries() {
		if err != nil {
			return err
		}
		keep := later(e.Place)
		if !keep && moved != 0 {
			row, _, err := t.Get(e.Link.Hash)
			if err != nil {
				return err
			}
			keep = len(row.Places) > 1
		}
		if !keep {
			b.Delete(hashKey(tableNew, e.Link.Hash))
		}
		if b.Size() > 1<<20 {
			if _, err := t.st.Apply(&b); err != nil {
				return err
			}
			b.Reset()
			b.Freeing()
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err = t.st.Apply(&b)
	return err
}

// Learn enters index entries that came from a commit's segments; blocks that
// are known already keep what is known, and gain the place. Of several places in one
// group that the entries name, the last is the home: what is stored again comes into a
// later pack, and the one before may be given up, which the commit does not say. Places in
// dead packs are passed over.
func (t *Table) Learn(entries []blockindex.Entry) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	for _, e := range slices.Backward(entries) {
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
		b.Link, b.Places = e.Link, append(b.Places, e.Place)
		c.b.Put(memberKey(e.Place, e.Link.Hash), nil)
		if e.Tag != (block.Tag{}) { // else it is named by a locator
			b.Tag = e.Tag
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
