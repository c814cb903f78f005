package blocks

import (
	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
)

// change gathers the rows that one step alters.
type change struct {
	t      *Table
	b      state.Batch
	blocks map[link.Hash]*Block
	packs  map[string]*Pack
	dead   map[group.ID]group.Bitmap // of groups that were looked at
	// counting says that references are being counted anew.
	counting bool
}

func (t *Table) begin() (*change, error) {
	counted, err := t.Counted()
	c := &change{t: t, blocks: map[link.Hash]*Block{}, packs: map[string]*Pack{},
		dead: map[group.ID]group.Bitmap{}, counting: !counted}
	c.b.Freeing() // commits free space, in the end
	return c, err
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
		if p.MostlyDead() {
			c.b.Put(watchKey(p.Group, p.Number), nil)
		}
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
	c.visit(b)
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
