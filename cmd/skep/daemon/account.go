package daemon

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/blocks"
	"skep/chunker/group"
	"skep/repair/run"
)

// account is what repair knows and changes of a drive's groups: the account of
// blocks, with the leases that the drive's keys sign.
type account struct{ d *drive }

// Groups lists all groups; of those that were let go of, which hold nothing that is
// wanted, only the former holders: the others are told elsewhere.
func (a account) Groups() ([]run.Group, error) {
	all, err := a.d.table.Groups()
	if err != nil {
		return nil, err
	}
	idle, err := a.d.table.Idle()
	if err != nil {
		return nil, err
	}
	views := make(map[group.ID]*run.Group, len(all))
	out := make([]run.Group, len(all))
	for i, g := range all {
		out[i] = run.Group{Group: g, Idle: idle[g.ID], Held: make([]group.Bitmap, len(g.Slots))}
		views[g.ID] = &out[i]
	}
	err = a.d.table.Packs(func(p blocks.Pack) bool {
		v := views[p.Group]
		if v == nil {
			return true
		}
		v.Wanted.Add(p.Number)
		if p.Acked.Count() == 0 {
			v.Unknown.Add(p.Number) // as on a device that joined the drive
		}
		for i := range v.Held {
			if p.Acked.Has(i) {
				v.Held[i].Add(p.Number)
			}
		}
		return true
	})
	if err != nil {
		return nil, err
	}
	err = a.d.packs.List(func(id group.ID, n uint16) error {
		if v := views[id]; v != nil && v.Wanted.Has(n) {
			v.Local.Add(n)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	gone, err := a.d.table.LetGoOf()
	for _, l := range gone {
		if len(l.Group.Former) > 0 {
			l.Group.Slots = make([]group.PeerKey, len(l.Group.Slots))
			out = append(out, run.Group{Group: l.Group, Held: make([]group.Bitmap, len(l.Group.Slots))})
		}
	}
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

// Manifest returns the signed manifest of a pack. On a device that joined the
// drive it has to be asked for once; the signature is made anew, which gives the
// same bytes.
func (a account) Manifest(ctx context.Context, id group.ID, number uint16) ([]byte, error) {
	p, known, err := a.d.table.Pack(id, number)
	if err != nil || p.Manifest != nil {
		return p.Manifest, err
	}
	g, ok, err := a.d.table.Group(id)
	if err == nil && !ok {
		err = fmt.Errorf("%w: %v", errNoGroup, id)
	}
	if err != nil {
		return nil, err
	}
	m, err := a.d.net.swarm.Manifest(ctx, group.PackRef{Group: id, Number: number, Class: g.Class, Coding: g.Coding, Slots: g.Slots})
	if err != nil {
		return nil, err
	}
	word := m.Sign(group.KeyOf(a.d.keys.Root, g.Nonce))
	if known {
		err = a.d.table.UpdatePack(id, number, func(p *blocks.Pack) { p.Manifest = word })
	}
	return word, err
}

// Pack returns the bytes of a pack that is kept here.
func (a account) Pack(id group.ID, number uint16) ([]byte, error) { return a.d.packs.Get(id, number) }

// Moved takes note that a slot has a new holder.
func (a account) Moved(id group.ID, slot uint8, holder group.PeerKey) error {
	defer a.d.engine.Changed()
	return a.d.table.MoveSlot(id, int(slot), holder)
}

// Left takes note that a peer holds shards of a slot that is not its own.
func (a account) Left(id group.ID, slot uint8, p group.PeerKey) error {
	return a.d.table.Left(id, slot, p)
}

// Release returns a release of some packs for a former holder.
func (a account) Release(ctx context.Context, id group.ID, p group.PeerKey, packs group.Bitmap) ([]byte, error) {
	return a.d.engine.Release(ctx, id, p, packs)
}

// Released takes note that a former holder has nothing any more.
func (a account) Released(id group.ID, p group.PeerKey) error { return a.d.table.Released(id, p) }

// Acked takes note of what was found, and not, in a slot.
func (a account) Acked(id group.ID, slot uint8, there, gone group.Bitmap) error {
	for n := range uint16(group.MaxPacks) {
		if !there.Has(n) && !gone.Has(n) {
			continue
		}
		err := a.d.table.UpdatePack(id, n, func(p *blocks.Pack) {
			if there.Has(n) {
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
