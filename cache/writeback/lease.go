package writeback

import (
	"context"
	"encoding/binary"
	"time"

	"skep/chunker/group"
)

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
)

// leaseNumber is the number of a lease that is made now: the time in Unix
// seconds, or one more than that of the lease before. So a device that was
// recovered, and does not know the newest one, makes one that counts more.
func leaseNumber(g group.Group, now time.Time) uint64 {
	return max(g.Lease+1, uint64(max(0, now.Unix())))
}

// leaseOf is the lease of this number. It follows from the account of the group
// alone: there are no two of one number.
func leaseOf(g group.Group) group.Lease {
	made := time.Unix(int64(g.Lease), 0)
	return group.Lease{Number: g.Lease, Until: made.Add(leaseTime).Unix(), Packs: group.MaxPacks,
		Bytes: int64(g.ShardSize()) * group.MaxPacks, Dead: g.Dead}
}

// leaseDue reports whether the lease of a group is to be renewed: when it is
// some weeks old, each at a time of its own.
func leaseDue(g group.Group, now time.Time) bool {
	spread := time.Duration(binary.BigEndian.Uint64(g.ID[:]) % uint64(renewSpread))
	return now.Sub(time.Unix(int64(g.Lease), 0)) >= renewAfter+spread
}

// leaseWanted reports whether a group needs a lease: it has packs that are not
// dead, or its founder may add some.
func (e *Engine) leaseWanted(g group.Group) bool {
	return g.Dead.Count() < int(g.Packs) || g.Packs < group.MaxPacks && g.Founder == e.self()
}

// RenewLeases makes new leases of groups whose leases are some weeks old, of a
// few of them at once, and hands them to the holders; those that are away now
// are given theirs by repair. It returns how many were made. It is to be called
// every hour or so, also while nothing changes.
func (e *Engine) RenewLeases(ctx context.Context) (n int, err error) {
	all, err := e.table.Groups()
	if err != nil {
		return 0, err
	}
	for _, g := range all {
		if n == renewAtOnce || ctx.Err() != nil {
			break
		}
		if !e.leaseWanted(g) || !leaseDue(g, e.now()) {
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
	return n, ctx.Err()
}

// renew gives a group a new lease.
func (e *Engine) renew(ctx context.Context, id group.ID) (group.Group, error) {
	return e.change(ctx, id, func(*group.Group) {})
}

// change changes a group's account, and makes a lease that says so.
func (e *Engine) change(ctx context.Context, id group.ID, fn func(*group.Group)) (g group.Group, err error) {
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return g, err
	}
	defer e.groups.Release(1)
	err = e.table.UpdateGroup(id, func(row *group.Group) error {
		fn(row)
		row.Lease = leaseNumber(*row, e.now())
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
