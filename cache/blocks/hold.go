package blocks

import (
	"errors"

	"skep/chunker/link"
)

// tableHeld lists the roots that this device needs beside its newest commit:
// hash → link. Each counts one reference.
const tableHeld = 't'

// Hold makes roots those that are needed beside the newest commit: they count a
// reference from now on, and what was held before and is not among them counts
// one less. If the children of one were never counted, as on a device that
// counted when nothing referred to it, references are not all counted any more:
// RecountStep goes on.
func (t *Table) Hold(roots []link.Link) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	held, err := t.held()
	if err != nil || len(held) == 0 && len(roots) == 0 {
		return err
	}
	c, err := t.begin()
	if err != nil {
		return err
	}
	wanted := map[link.Hash]bool{}
	for _, l := range roots {
		again := wanted[l.Hash]
		wanted[l.Hash] = true
		if _, there := held[l.Hash]; there || again {
			continue
		}
		c.b.Put(hashKey(tableHeld, l.Hash), l.Append(nil))
		if err := c.hold(l); err != nil {
			return err
		}
	}
	for h, l := range held {
		if wanted[h] {
			continue
		}
		c.b.Delete(hashKey(tableHeld, h))
		if err := c.drop(l); err != nil {
			return err
		}
	}
	return c.apply()
}

// hold counts a reference to a root, and sees to it that its children are counted.
func (c *change) hold(l link.Link) error {
	b, err := c.block(l)
	if err != nil {
		return err
	}
	if !b.Expanded && l.Codec != link.Raw {
		c.counting = true // refer has the children visited
		c.b.Delete(countedKey)
	}
	return c.refer(l)
}

// held reads which roots are held.
func (t *Table) held() (map[link.Hash]link.Link, error) {
	out := map[link.Hash]link.Link{}
	var bad error
	err := t.st.Scan([]byte{tableHeld}, []byte{tableHeld + 1}, func(_, v []byte) bool {
		var l link.Link
		if bad = l.UnmarshalBinary(v); bad != nil {
			return false
		}
		out[l.Hash] = l
		return true
	})
	return out, errors.Join(err, bad)
}
