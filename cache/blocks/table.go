package blocks

import (
	"sync"

	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/link"
)

// Table is the account, on tables that others share. It is safe for concurrent
// use; changes are one after the other.
type Table struct {
	st *state.Store
	mu sync.Mutex // held during a change
	// unread are dropped blocks that could not be read when their children were
	// to be visited; guarded by mu.
	unread map[link.Hash]struct{}
}

// New returns the account that lies in st.
func New(st *state.Store) *Table { return &Table{st: st, unread: map[link.Hash]struct{}{}} }

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
// something refers to, or that was stored since the newest commit; while
// references are counted anew, one, too, that nothing is known to refer to yet.
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
		if usable, err := t.unreferenced(b); err != nil || !usable {
			return link.Link{}, false, err
		}
	}
	return b.Link, true, nil
}

// unreferenced reports whether a block that nothing refers to may be referred
// to again: one that was stored since the newest commit, or, while references
// are counted anew and so nothing is given up here, any that has no children.
// Whether another device gave it up before that, who asks has to find out.
func (t *Table) unreferenced(b Block) (bool, error) {
	_, fresh, err := t.st.Get(hashKey(tableOrphan, b.Link.Hash))
	if fresh || err != nil || b.Link.Codec != link.Raw {
		return fresh, err
	}
	counted, err := t.Counted()
	return !counted, err
}

// Turn counts one reference to the commit that begins to be needed, and one less
// to the one that is not needed any more; either may be the zero link. What with
// adds to the batch becomes true at the same instant.
func (t *Table) Turn(now, before link.Link, with func(*state.Batch) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	c, err := t.begin()
	if err != nil {
		return err
	}
	if err := with(&c.b); err != nil {
		return err
	}
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
