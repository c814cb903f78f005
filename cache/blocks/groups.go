package blocks

import (
	"encoding/binary"
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
	return t.putGroup(g)
}

func (t *Table) putGroup(g group.Group) error {
	var b state.Batch
	b.Freeing()
	b.Put(groupKey(g.ID), record.Encode(g))
	_, err := t.st.Apply(&b)
	return err
}

// UpdateGroup changes a group's account by fn.
func (t *Table) UpdateGroup(id group.ID, fn func(*group.Group) error) error {
	return t.updateGroup(id, func(g *group.Group, _ *state.Batch) error { return fn(g) })
}

func (t *Table) updateGroup(id group.ID, fn func(*group.Group, *state.Batch) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok, err := t.Group(id)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("group %v is not in the table", id)
	}
	var b state.Batch
	b.Freeing()
	if err := fn(&g, &b); err != nil {
		return err
	}
	b.Put(groupKey(id), record.Encode(g))
	_, err = t.st.Apply(&b)
	return err
}

// Left notes that a peer holds shards of a slot that is not its own.
func (t *Table) Left(id group.ID, slot uint8, p group.PeerKey) error {
	return t.UpdateGroup(id, func(g *group.Group) error {
		g.Left(slot, p)
		return nil
	})
}

// Released notes that a former holder has nothing any more of a group, which may
// have been let go of. The newest commit may say otherwise for a while: who goes by
// that asks once more.
func (t *Table) Released(id group.ID, p group.PeerKey) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	g, ok, err := t.Group(id)
	if err != nil {
		return err
	}
	if !ok {
		return t.updateLetGo(id, func(l *LetGo) { l.Group.Forget(p) })
	}
	g.Forget(p)
	return t.putGroup(g)
}

// movedKey is where a number stands if slots have other holders than the newest
// commit's group table says, or blocks that it needs another home than its index
// says; it is another one after each such change.
var movedKey = []byte("hmoved")

// MoveSlot gives a slot of a group another holder. The one before is a former one
// from then on, and what it acknowledged the new one has not.
func (t *Table) MoveSlot(id group.ID, slot int, holder group.PeerKey) error {
	return t.updateGroup(id, func(g *group.Group, b *state.Batch) error {
		if slot >= len(g.Slots) {
			return fmt.Errorf("group %v has no slot %d", id, slot)
		}
		g.Move(slot, holder)
		t.putMoved(b)
		return t.forgetAcked(b, *g, slot)
	})
}

// forgetAcked adds to a batch that nobody has said of any pack to have it in a slot.
func (t *Table) forgetAcked(b *state.Batch, g group.Group, slot int) error {
	for n := range uint16(group.MaxPacks) {
		p, ok, err := t.Pack(g.ID, n)
		if err != nil {
			return err
		}
		if ok && p.Acked.Has(slot) {
			p.Acked.Remove(slot)
			b.Put(packKey(g.ID, n), p.encode())
		}
	}
	return nil
}

func (t *Table) putMoved(b *state.Batch) {
	b.Put(movedKey, binary.BigEndian.AppendUint64(nil, t.st.Seq()+1))
}

// Moved tells the moves that the newest commit does not say, zero for none.
func (t *Table) Moved() (uint64, error) {
	b, ok, err := t.st.Get(movedKey)
	if !ok || err != nil || len(b) != 8 {
		return 0, err
	}
	return binary.BigEndian.Uint64(b), nil
}

// Told adds to a batch that the commit says of all moves up to moved. It is
// called within Turn.
func (t *Table) Told(b *state.Batch, moved uint64) error {
	now, err := t.Moved()
	if err == nil && moved != 0 && now == moved {
		b.Delete(movedKey)
	}
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

// carryStep is about how many bytes Carry writes at once.
const carryStep = 1 << 20

// Carry writes again what could not be had from elsewhere if the index were
// lost and the journal began now. Each row stands alone: where it is broken off, it
// is done again.
func (t *Table) Carry() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.Groups()
	if err != nil {
		return err
	}
	gone, err := t.LetGoOf()
	if err != nil {
		return err
	}
	var b state.Batch
	for _, g := range all {
		b.Put(groupKey(g.ID), record.Encode(g))
		if err := t.carry(&b, carryStep); err != nil {
			return err
		}
	}
	for _, l := range gone {
		b.Put(letGoKey(l.Group.ID), l.encode())
		if err := t.carry(&b, carryStep); err != nil {
			return err
		}
	}
	return t.carry(&b, 1)
}

// carry applies and empties a batch of at least so many bytes.
func (t *Table) carry(b *state.Batch, least int) error {
	if b.Size() < least {
		return nil
	}
	b.Freeing()
	_, err := t.st.Apply(b)
	b.Reset()
	return err
}
