package blocks

import (
	"errors"
	"fmt"

	"skep/chunker/group"
	"skep/chunker/link"
)

// ErrUnread says that a block which nothing refers to could not be read, so that
// the references of its children stay as they are.
var ErrUnread = errors.New("a block to be given up cannot be read")

// Children returns the blocks that a block refers to, by reading it.
type Children func(l link.Link) ([]link.Link, error)

// Reclaim drops up to n blocks that nothing refers to, counting their
// children's references down. It reports whether there is more to do. No
// commit may be under way: what that has stored is not referred to yet.
// Children are read without holding anybody up. A block that cannot be read is
// reported once, as ErrUnread, and passed over until RetryUnread.
func (t *Table) Reclaim(n int, children Children) (more bool, err error) {
	orphans, err := t.settleOrphans(n)
	if err != nil {
		return false, err
	}
	dropped, err := t.readable(max(1, n-orphans))
	if err != nil {
		return false, err
	}
	for _, h := range dropped {
		if err := t.expandDropped(h, children); err != nil {
			return false, err
		}
	}
	return orphans >= n || len(dropped) > 0, nil
}

// settleOrphans makes up to n blocks that were stored and never referred to
// dropped ones.
func (t *Table) settleOrphans(n int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	orphans, err := t.some(tableOrphan, n)
	if err != nil {
		return 0, err
	}
	c, err := t.begin()
	if err != nil {
		return 0, err
	}
	for _, h := range orphans {
		if err := c.settleOrphan(h); err != nil {
			return 0, err
		}
	}
	return len(orphans), c.apply()
}

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
	b, ok, err := t.Get(h)
	if err != nil {
		return err
	}
	var kids []link.Link
	if ok && b.Refs == 0 && b.Expanded {
		if kids, err = children(b.Link); err != nil {
			return t.passOver(h, err)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	c.b.Delete(hashKey(tableDropped, h))
	if b, ok, err = t.Get(h); err != nil {
		return err
	}
	if ok && b.Refs == 0 && b.Expanded {
		if err := c.dropKids(b.Link, kids); err != nil {
			return err
		}
	}
	return c.apply()
}

// readable returns up to n dropped blocks that nobody failed to read.
func (t *Table) readable(n int) ([]link.Hash, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []link.Hash
	err := t.st.Scan([]byte{tableDropped}, []byte{tableDropped + 1}, func(k, _ []byte) bool {
		if len(k) == 33 {
			if h := link.Hash(k[1:]); !t.isUnread(h) {
				out = append(out, h)
			}
		}
		return len(out) < n
	})
	return out, err
}

func (t *Table) isUnread(h link.Hash) bool {
	_, ok := t.unread[h]
	return ok
}

func (t *Table) passOver(h link.Hash, cause error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.unread[h] = struct{}{}
	return fmt.Errorf("%w: %w", ErrUnread, cause)
}

// RetryUnread makes Reclaim try again what could not be read before.
func (t *Table) RetryUnread() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.unread)
}

// Awaited reports whether a pack has dropped blocks whose children are still to be
// visited: it is not to be given up before that.
func (t *Table) Awaited(id group.ID, number uint16) (bool, error) {
	dropped, err := t.some(tableDropped, 1)
	if err != nil || len(dropped) == 0 {
		return false, err
	}
	members, err := t.Members(id, number)
	if err != nil {
		return false, err
	}
	for _, m := range members {
		if _, ok, err := t.st.Get(hashKey(tableDropped, m.Link.Hash)); ok || err != nil {
			return ok, err
		}
	}
	return false, nil
}

// dropKids counts the references of a dropped block down.
func (c *change) dropKids(l link.Link, kids []link.Link) error {
	row, err := c.block(l)
	if err != nil {
		return err
	}
	row.Expanded = false
	for _, k := range kids {
		if err := c.drop(k); err != nil {
			return err
		}
	}
	return nil
}
