package blocks

import (
	"errors"
	"fmt"
	"slices"

	"skep/cache/state"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
)

// tableVisit lists blocks that are counted, and whose children are not yet,
// while references are counted anew.
const tableVisit = 'v'

// countedKey is where it says that the references of all stored blocks are
// counted. Where it does not, nothing may be given up on the word of a count.
var countedKey = []byte("hrefs")

// SetCounted says that all references are counted: on a new drive there are
// none.
func SetCounted(b *state.Batch) { b.Put(countedKey, []byte{1}) }

// Counted reports whether the references of all stored blocks are counted.
func (t *Table) Counted() (bool, error) {
	b, ok, err := t.st.Get(countedKey)
	return ok && len(b) == 1 && b[0] == 1, err
}

// BeginRecount starts counting the references of everything that a commit
// needs, on a device that has the commit but not the account: it joined the
// drive, or lost its index. own are the blocks that are found by locators:
// the commit's block itself, first, and those that it names; none where there is
// no commit. RecountStep does the rest; commits may happen in between. If it did
// not return, it has to be called again.
func (t *Table) BeginRecount(own []blockindex.Entry) error {
	var b state.Batch
	b.Freeing()
	b.Delete(countedKey)
	if _, err := t.st.Apply(&b); err != nil {
		return err
	}
	if err := t.clear(); err != nil {
		return err
	}
	groups, err := t.Groups()
	if err != nil {
		return err
	}
	for _, g := range groups {
		if err := t.enterPacks(g); err != nil {
			return err
		}
	}
	if err := t.Learn(own); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	if len(own) > 0 {
		err = c.refer(own[0].Link)
	}
	if err != nil {
		return err
	}
	return c.apply()
}

// clear forgets all blocks and packs.
func (t *Table) clear() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, table := range []byte{tableBlock, tableTag, tableOrphan, tableDropped, tableNew, tablePack, tableMember, tableVisit, tableHeld, tableWatch} {
		for more := true; more; {
			var b state.Batch
			b.Freeing()
			more = false
			err := t.st.Scan([]byte{table}, []byte{table + 1}, func(k, _ []byte) bool {
				b.Delete(k)
				more = b.Len() >= 4096
				return !more
			})
			if err != nil {
				return err
			}
			if b.Len() > 0 {
				if _, err := t.st.Apply(&b); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// enterPacks makes rows for all packs of a group that are not dead. What lies
// in their slots, statements will tell.
func (t *Table) enterPacks(g group.Group) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Freeing()
	for n := range g.Packs {
		if !g.Dead.Has(n) {
			p := Pack{Group: g.ID, Number: n, Kind: g.Kind}
			b.Put(packKey(g.ID, n), p.encode())
			b.Put(watchKey(g.ID, n), nil)
		}
	}
	if b.Len() == 0 {
		return nil
	}
	_, err := t.st.Apply(&b)
	return err
}

// visit notes that the children of a block which gained its first reference
// are to be counted, while all are counted anew.
func (c *change) visit(b *Block) {
	if c.counting && !b.Expanded && b.Link.Codec != link.Raw {
		c.b.Put(hashKey(tableVisit, b.Link.Hash), b.Link.Append(nil))
	}
}

// RecountStep counts the children of up to n blocks; more is false when all is
// counted. By then the whole index of the newest commit has to be learned. If blocks that
// are needed were stored again meanwhile, a commit has to tell: see Moved.
func (t *Table) RecountStep(n int, children Children) (more bool, err error) {
	var todo []link.Link
	var bad error
	err = t.st.Scan([]byte{tableVisit}, []byte{tableVisit + 1}, func(_, v []byte) bool {
		var l link.Link
		bad = l.UnmarshalBinary(v)
		todo = append(todo, l)
		return bad == nil && len(todo) < n
	})
	if err = errors.Join(err, bad); err != nil {
		return false, err
	}
	for _, l := range todo {
		b, _, err := t.Get(l.Hash)
		if err != nil {
			return true, err
		}
		var kids []link.Link
		wanted := b.Refs > 0 && !b.Expanded // else nothing needs it, maybe because it is lost
		if wanted {
			if kids, err = children(l); err != nil {
				return true, err
			}
		}
		if err := t.expand(l, kids, wanted); err != nil {
			return true, err
		}
	}
	if len(todo) > 0 {
		return true, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var b state.Batch
	b.Freeing()
	SetCounted(&b)
	untold, err := t.hasUntold(func(blockindex.Place) bool { return true })
	if err != nil {
		return false, err
	}
	if untold {
		t.putMoved(&b)
	}
	_, err = t.st.Apply(&b)
	return false, err
}

// Untold reports whether a block that is needed has another home than the newest commit
// says, and is, too, in a place of which left says that the commit is to tell for its sake.
func (t *Table) Untold(left func(blockindex.Place) bool) (bool, error) {
	if moved, err := t.Moved(); err != nil || moved == 0 {
		return false, err
	}
	return t.hasUntold(left)
}

// hasUntold reports whether a block that is needed has a home that is in no segment of the
// index yet, and another place of which left says so. While references are counted, what
// was stored again is not known to be such a one: it may be learned of, or found to be
// needed, only later.
func (t *Table) hasUntold(left func(blockindex.Place) bool) (found bool, err error) {
	var bad error
	err = t.st.Scan([]byte{tableNew}, []byte{tableNew + 1}, func(k, _ []byte) bool {
		var b Block
		b, _, bad = t.Get(link.Hash(k[1:]))
		found = b.Refs > 0 && len(b.Places) > 1 && slices.ContainsFunc(b.Places[1:], left)
		return !found && bad == nil
	})
	return found, errors.Join(err, bad)
}

// expand counts the children of a block, if they were read, unless that was done
// when it was stored, or nothing refers to it any more.
func (t *Table) expand(l link.Link, kids []link.Link, read bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	row, err := c.block(l)
	if err != nil {
		return err
	}
	wanted := !row.Expanded && row.Refs > 0
	if wanted && !read {
		return nil // it was referred to meanwhile
	}
	c.b.Delete(hashKey(tableVisit, l.Hash))
	if wanted {
		row.Expanded = len(kids) > 0
		for _, k := range kids {
			if err := c.refer(k); err != nil {
				return fmt.Errorf("block %v: %w", l, err)
			}
		}
	}
	return c.apply()
}
