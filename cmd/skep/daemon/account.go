package daemon

import (
	"errors"
	"fmt"

	"skep/cache/blocks"
	"skep/chunker/group"
)

// account is what repair knows and changes of a drive's groups: the account of
// blocks, with the leases that the drive's keys sign.
type account struct{ d *drive }

// groupView is a group with what is to be kept of it.
type groupView struct {
	group  group.Group
	wanted group.Bitmap   // packs that are out and not dead
	held   []group.Bitmap // by slot: packs whose shards its holder acknowledged
	local  group.Bitmap   // packs that are kept here
}

// groups lists all groups that have packs.
func (a account) groups() ([]groupView, error) {
	all, err := a.d.table.Groups()
	if err != nil {
		return nil, err
	}
	views := make(map[group.ID]*groupView, len(all))
	out := make([]groupView, len(all))
	for i, g := range all {
		out[i] = groupView{group: g, held: make([]group.Bitmap, len(g.Slots))}
		views[g.ID] = &out[i]
	}
	err = a.d.table.Packs(func(p blocks.Pack) bool {
		v := views[p.Group]
		if v == nil {
			return true
		}
		v.wanted.Add(p.Number)
		for i := range v.held {
			if p.Acked.Has(i) {
				v.held[i].Add(p.Number)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	err = a.d.packs.List(func(id group.ID, n uint16) error {
		if v := views[id]; v != nil && v.wanted.Has(n) {
			v.local.Add(n)
		}
		return nil
	})
	return out, err
}

var errNoGroup = errors.New("group is not in the table")

// Lease returns the newest lease of a group, signed.
func (a account) Lease(id group.ID) (word []byte, number uint64, err error) {
	g, ok, err := a.d.table.Group(id)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v", errNoGroup, id)
	}
	if err != nil {
		return nil, 0, err
	}
	return a.d.engine.LeaseOf(g), g.Lease, nil
}

// Manifest returns the signed manifest of a pack; nil if it is not known here.
func (a account) Manifest(id group.ID, number uint16) ([]byte, error) {
	p, _, err := a.d.table.Pack(id, number)
	return p.Manifest, err
}

// Pack returns the bytes of a pack that is kept here.
func (a account) Pack(id group.ID, number uint16) ([]byte, error) { return a.d.packs.Get(id, number) }

// Moved takes note that a slot has a new holder.
func (a account) Moved(id group.ID, slot uint8, holder group.PeerKey) error {
	return a.d.table.UpdateGroup(id, func(g *group.Group) error {
		if int(slot) >= len(g.Slots) {
			return fmt.Errorf("group %v has no slot %d", id, slot)
		}
		g.Slots[slot] = holder
		return nil
	})
}

// Acked takes note of what lies in a slot.
func (a account) Acked(id group.ID, slot uint8, held group.Bitmap) error {
	g, ok, err := a.d.table.Group(id)
	if err != nil || !ok {
		return err
	}
	for n := range g.Packs {
		has := held.Has(n)
		p, ok, err := a.d.table.Pack(id, n)
		if err != nil {
			return err
		}
		if !ok || p.Acked.Has(int(slot)) == has {
			continue
		}
		err = a.d.table.UpdatePack(id, n, func(p *blocks.Pack) {
			if has {
				p.Acked.Add(int(slot))
			} else {
				p.Acked.Remove(int(slot))
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}
