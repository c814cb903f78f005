package blocks

import (
	"skep/chunker/link"
)

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
