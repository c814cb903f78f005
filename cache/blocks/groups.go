package blocks

import (
	"fmt"

	"skep/cache/state"
	"skep/chunker/group"
	"skep/chunker/record"
)

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
