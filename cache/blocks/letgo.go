package blocks

import (
	"fmt"

	"skep/cache/state"
	"skep/chunker/group"
	"skep/chunker/record"
)

// tableLetGo lists the groups that were let go of, as long as some of their
// holders have not been told: group → slots that have, record. It is kept on this
// device alone. Where that is lost, what these hold goes when their leases end.
const tableLetGo = 'f'

// LetGo is a group that is not in the account any more, and which slots have been
// told.
type LetGo struct {
	Group group.Group
	Told  group.SlotSet
}

// Untold is the group with those of its holders alone that have not been told.
func (l LetGo) Untold() group.Group {
	g := l.Group
	g.Slots = make([]group.PeerKey, len(l.Group.Slots))
	for i, p := range l.Group.Slots {
		if !l.Told.Has(i) {
			g.Slots[i] = p
		}
	}
	return g
}

func letGoKey(id group.ID) []byte { return append([]byte{tableLetGo}, id[:]...) }

func (l LetGo) encode() []byte { return append(l.Told[:], record.Encode(l.Group)...) }

func decodeLetGo(v []byte) (l LetGo, err error) {
	if len(v) < len(l.Told) {
		return l, errRow
	}
	l.Told = group.SlotSet(v[:len(l.Told)])
	return l, record.Decode(v[len(l.Told):], 1<<20, &l.Group)
}

// LetGo takes a group out of the account, unless packs of it are in it, or last
// says no. last makes of its record that of which the holders are to be told.
func (t *Table) LetGo(id group.ID, last func(*group.Group) bool) (gone bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok, err := t.Group(id)
	if !ok || err != nil {
		return false, err
	}
	if used, err := t.hasPacks(id); used || err != nil || !last(&g) {
		return false, err
	}
	var b state.Batch
	b.Freeing()
	b.Delete(groupKey(id))
	b.Put(letGoKey(id), LetGo{Group: g}.encode())
	_, err = t.st.Apply(&b)
	return err == nil, err
}

// hasPacks reports whether packs of a group are in the account, or watched.
func (t *Table) hasPacks(id group.ID) (found bool, err error) {
	for _, table := range []byte{tablePack, tableWatch} {
		from := append([]byte{table}, id[:]...)
		err := t.st.Scan(from, state.PrefixEnd(from), func(_, _ []byte) bool {
			found = true
			return false
		})
		if found || err != nil {
			return found, err
		}
	}
	return false, nil
}

// LetGoOf returns the groups that were let go of and that some holders have not
// been told of, by id.
func (t *Table) LetGoOf() ([]LetGo, error) {
	var out []LetGo
	var bad error
	err := t.st.Scan([]byte{tableLetGo}, []byte{tableLetGo + 1}, func(_, v []byte) bool {
		var l LetGo
		l, bad = decodeLetGo(v)
		out = append(out, l)
		return bad == nil
	})
	if err == nil {
		err = bad
	}
	return out, err
}

// LetGoGroup returns the record of a group that was let go of and that somebody has
// not been told of.
func (t *Table) LetGoGroup(id group.ID) (l LetGo, ok bool, err error) {
	v, ok, err := t.st.Get(letGoKey(id))
	if !ok || err != nil {
		return l, false, err
	}
	if l, err = decodeLetGo(v); err != nil {
		return l, false, fmt.Errorf("group %v: %w", id, err)
	}
	return l, true, nil
}

// Heard notes that the holders of some slots know that a group was let go of. When
// all do, it is forgotten.
func (t *Table) Heard(id group.ID, slots group.SlotSet) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.updateLetGo(id, func(l *LetGo) {
		for i := range l.Group.Slots {
			if slots.Has(i) {
				l.Told.Add(i)
			}
		}
	})
}

// updateLetGo changes the record of a group that was let go of. When it says that
// nobody is to be told any more, it is forgotten. The caller holds t.mu.
func (t *Table) updateLetGo(id group.ID, fn func(*LetGo)) error {
	l, ok, err := t.LetGoGroup(id)
	if !ok || err != nil {
		return err
	}
	fn(&l)
	left := len(l.Group.Former) > 0
	for i, p := range l.Group.Slots {
		left = left || !p.IsZero() && !l.Told.Has(i)
	}
	if !left {
		return t.forgetLetGo(id)
	}
	var b state.Batch
	b.Freeing()
	b.Put(letGoKey(id), l.encode())
	_, err = t.st.Apply(&b)
	return err
}

// ForgetLetGo ends that holders are told of a group.
func (t *Table) ForgetLetGo(id group.ID) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.forgetLetGo(id)
}

func (t *Table) forgetLetGo(id group.ID) error {
	var b state.Batch
	b.Freeing()
	b.Delete(letGoKey(id))
	_, err := t.st.Apply(&b)
	return err
}
