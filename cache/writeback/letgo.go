package writeback

import (
	"context"
	"slices"
	"time"

	"skep/cache/blocks"
	"skep/chunker/group"
)

const (
	// tellFor is for how long the holders of a group that was let go of are told.
	// Who is away for longer deletes what he has when its lease ends.
	tellFor = 30 * 24 * time.Hour
	// tellAtOnce bounds how many groups are told of in one round.
	tellAtOnce = 16
)

// letGo takes a group out of the account, if no pack of it is needed any more and
// nothing will be added to it. One that this device founded is over: its last lease
// calls all numbers dead that a pack of it can have; but not while it is not known to be
// alone: it may have been set back, and have added packs that it does not know of. To one
// of another device that device may have added packs which nobody knows of yet: those only
// its lease ends.
func (e *Engine) letGo(ctx context.Context, g group.Group) (gone bool, err error) {
	if g.Dead.Count() < int(g.Packs) || g.Founder == e.self() && !e.aloneLately() {
		return false, nil
	}
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer e.groups.Release(1)
	k := groupKind{g.Class, g.Kind}
	current := e.current[k].ID == g.ID
	if current && e.current[k].Packs < group.MaxPacks {
		return false, nil
	}
	gone, err = e.table.LetGo(g.ID, func(row *group.Group) bool {
		if row.Dead.Count() < int(row.Packs) {
			return false
		}
		if row.Founder == e.self() {
			row.Dead = group.AllPacks
		}
		lease(row, e.now())
		return true
	})
	if gone && current {
		delete(e.current, k)
	}
	return gone, err
}

// tellLetGo hands their last leases to the holders of groups that were let go of,
// those that have not been told yet, of a few groups at once. It returns of how many
// some holder heard.
func (e *Engine) tellLetGo(ctx context.Context) (n int, err error) {
	all, err := e.table.LetGoOf()
	if err != nil {
		return 0, err
	}
	for _, l := range e.nextToTell(all) {
		if ctx.Err() != nil {
			return n, ctx.Err()
		}
		e.toldLast = l.Group.ID
		if age := leaseAge(l.Group, e.now()); age > tellFor || age < -clockSlack {
			if err := e.table.ForgetLetGo(l.Group.ID); err != nil {
				return n, err
			}
			continue
		}
		heard, _ := e.cfg.Sink.Lease(ctx, l.Untold(), e.LeaseOf(l.Group)) // who is away hears another time
		if heard == (group.SlotSet{}) {
			continue
		}
		n++
		if err := e.table.Heard(l.Group.ID, heard); err != nil {
			return n, err
		}
	}
	return n, nil
}

// nextToTell picks the groups whose turn it is, from the one on after that which
// was told of last.
func (e *Engine) nextToTell(all []blocks.LetGo) []blocks.LetGo {
	at, _ := slices.BinarySearchFunc(all, e.toldLast, func(l blocks.LetGo, id group.ID) int {
		if slices.Compare(l.Group.ID[:], id[:]) <= 0 {
			return -1
		}
		return 1
	})
	turn := append(slices.Clone(all[at:]), all[:at]...)
	return turn[:min(len(turn), tellAtOnce)]
}
