package writeback

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/chunker/group"
)

var errNotAlone = errors.New("another device may have the drive, too")

const (
	// leaseTime is how long a group is wanted without another word of its owner:
	// a year after he was last there, and what passes until leases are renewed.
	leaseTime = 400 * 24 * time.Hour
	// renewAfter is the age from which on a lease is renewed, and renewSpread
	// over what time the leases of a drive are spread.
	renewAfter  = 24 * 24 * time.Hour
	renewSpread = 8 * 24 * time.Hour
	// renewAtOnce bounds how many are renewed in one round.
	renewAtOnce = 16
	// clockSlack is how far our clock may have been set back without a word.
	clockSlack = 24 * time.Hour
)

// leaseNumber is the number of a lease that is made now: the time in Unix
// seconds, or one more than that of the lease before. So a device that was
// recovered, and does not know the newest one, makes one that counts more.
func leaseNumber(g group.Group, now time.Time) uint64 {
	return max(g.Lease+1, uint64(max(0, now.Unix())))
}

// lease gives a group a new lease. Its end does not follow from its number, which
// a clock that once was far ahead makes great for ever.
func lease(g *group.Group, now time.Time) {
	g.Lease, g.Until = leaseNumber(*g, now), now.Add(leaseTime).Unix()
}

// leaseOf is the newest lease of a group. It follows from the account of the group
// alone: there are no two of one number.
func leaseOf(g group.Group) group.Lease {
	return group.Lease{Number: g.Lease, Until: g.Until, Packs: group.MaxPacks,
		Bytes: int64(g.ShardSize()) * group.MaxPacks, Dead: g.Dead}
}

// leaseDue reports whether the lease of a group is to be renewed: when it is
// some weeks old, each at a time of its own; or when it was made later than it is
// now, by a clock that was ahead.
func leaseDue(g group.Group, now time.Time) bool {
	spread := time.Duration(binary.BigEndian.Uint64(g.ID[:]) % uint64(renewSpread))
	age := leaseAge(g, now)
	return age >= renewAfter+spread || age < -clockSlack
}

// leaseAge is how long ago the newest lease of a group was made.
func leaseAge(g group.Group, now time.Time) time.Duration {
	return now.Sub(time.Unix(g.Until, 0).Add(-leaseTime))
}

// RenewLeases makes new leases of groups whose leases are some weeks old, of a
// few of them at once, and hands them to the holders; those that are away now
// are given theirs by repair. It returns how many were made. It is to be called
// every hour or so, also while nothing changes.
//
// A group that no pack is needed of any more, and that nothing will be added to,
// it lets go of, and tells those of its holders that were away.
func (e *Engine) RenewLeases(ctx context.Context) (n int, err error) {
	all, err := e.table.Groups()
	if err != nil {
		return 0, err
	}
	for _, g := range all {
		if n == renewAtOnce || ctx.Err() != nil {
			break
		}
		gone, err := e.letGo(ctx, g)
		if err != nil {
			return n, err
		}
		if gone || !leaseDue(g, e.now()) {
			continue
		}
		if g, err = e.renew(ctx, g.ID); err != nil {
			return n, err
		}
		n++
		if _, err := e.cfg.Sink.Lease(ctx, g, e.LeaseOf(g)); err != nil {
			e.cfg.Log.Info("some holders do not have the newest lease yet", "group", g.ID, "err", err)
		}
	}
	told, err := e.tellLetGo(ctx)
	return n + told, errors.Join(err, ctx.Err())
}

// renew gives a group a new lease.
func (e *Engine) renew(ctx context.Context, id group.ID) (group.Group, error) {
	return e.change(ctx, id, func(*group.Group) error { return nil })
}

// change changes a group's account, and makes a lease that says so.
func (e *Engine) change(ctx context.Context, id group.ID, fn func(*group.Group) error) (g group.Group, err error) {
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return g, err
	}
	defer e.groups.Release(1)
	err = e.table.UpdateGroup(id, func(row *group.Group) error {
		if err := fn(row); err != nil {
			return err
		}
		lease(row, e.now())
		g = *row
		return nil
	})
	if k := (groupKind{g.Class, g.Kind}); err == nil && e.current[k].ID == id {
		e.current[k] = g
	}
	return g, err
}

// LeaseOf returns the newest lease of a group, signed.
func (e *Engine) LeaseOf(g group.Group) []byte {
	return leaseOf(g).Sign(group.KeyOf(e.cfg.Root, g.Nonce))
}

// Release returns a release of packs of a group for a former holder of it. It has the number
// of a new lease of the group: who is given a slot after this has a lease that
// counts as much at least, so that the release does nothing to it.
//
// A group that was let go of has the last of its leases already, and gives nobody
// a slot.
//
// Nobody is released as long as there may be another device, which may have given
// the slot to that very peer.
func (e *Engine) Release(ctx context.Context, id group.ID, p group.PeerKey, packs group.Bitmap) ([]byte, error) {
	if !e.aloneLately() {
		return nil, errNotAlone
	}
	l, gone, err := e.table.LetGoGroup(id)
	g := l.Group
	if err == nil && !gone {
		g, err = e.renew(ctx, id)
	}
	if err != nil {
		return nil, err
	}
	if slices.Contains(g.Slots, p) {
		return nil, fmt.Errorf("release of %v: it has a slot of group %v", p, id)
	}
	return group.Release{Holder: p, Number: g.Lease, Packs: packs}.Sign(group.KeyOf(e.cfg.Root, g.Nonce)), nil
}
