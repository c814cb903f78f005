package run

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
	"skep/repair/health"
)

// repair brings a slot its shards: to its holder, or to a new one.
func (l *Loop) repair(ctx context.Context, a health.Action, g group.Group, m *move) {
	stored, err := l.bringAll(ctx, a, g)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		l.c.Log.Info("a repair was cancelled", "kind", a.Kind, "peer", a.Peer, "group", a.Group, "slot", a.Slot)
	default:
		l.c.Log.Info("a repair did not bring all", "kind", a.Kind, "peer", a.Peer, "group", a.Group, "slot", a.Slot, "err", err)
		if _, ok := errors.AsType[*targetError](err); ok && a.Kind == health.Move {
			l.avoid(a.Peer)
		}
	}
	if l.report(a, m, stored, blame(err)) {
		l.c.Log.Info("a slot has a new holder", "group", a.Group, "slot", a.Slot, "holder", a.Peer, "packs", stored.Count())
	} else {
		l.leftBehind(ctx, a, stored, err)
	}
	if stored != (group.Bitmap{}) {
		l.Refresh()
	}
}

// report ends a repair, and reports whether a slot has a new holder.
func (l *Loop) report(a health.Action, m *move, stored group.Bitmap, why health.Blame) bool {
	if !l.ended(a, m, stored, why) {
		return false
	}
	err := l.c.Account.Moved(a.Group, a.Slot, a.Peer)
	if err != nil {
		l.c.Log.Error("a slot's new holder was not noted", "group", a.Group, "slot", a.Slot, "err", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.moved[a.Group] = true
	if l.telling[a.Group]--; l.telling[a.Group] == 0 {
		delete(l.telling, a.Group)
	}
	return err == nil
}

// ended tells the state how a repair ended, and reports whether the account is to be
// told of a new holder.
func (l *Loop) ended(a health.Action, m *move, stored group.Bitmap, why health.Blame) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k := (slotKey{a.Group, a.Slot}); l.moves[k] == m {
		delete(l.moves, k)
	}
	now := l.c.Now()
	switch {
	case stored == (group.Bitmap{}):
		l.state.Failed(a, why, now)
		return false
	case a.Kind == health.Refill:
		l.state.Refilled(a, stored, now)
		return false
	}
	l.state.Moved(a, stored, now)
	g, ok := l.state.Group(a.Group)
	if !ok || g.Slots[a.Slot].Holder != a.Peer {
		return false // it went back, or the slot went to somebody else
	}
	// What is read of the account until it was told, and what was read by now, may be
	// from before. What it says then is told to the state anew.
	l.telling[a.Group]++
	delete(l.given, a.Group)
	return true
}

// targetError is a failure of the peer to which shards are brought. Others
// are those of building them.
type targetError struct{ err error }

func (e *targetError) Error() string { return e.err.Error() }
func (e *targetError) Unwrap() error { return e.err }

// blame says who is to blame for what ended a repair. A peer that has no room,
// takes no more groups, or refuses the slot, is unwilling.
func blame(err error) health.Blame {
	if _, ok := errors.AsType[*targetError](err); !ok {
		return health.Ours
	}
	call, ok := errors.AsType[*client.Error](err)
	crowded := errors.Is(err, client.ErrCrowded)
	if crowded || errors.Is(err, client.ErrFull) || errors.Is(err, client.ErrRefused) && ok && call.Op == wire.KindAdmit {
		return health.Unwilling
	}
	return health.Theirs
}

// maxFailures is how many packs in a row may fail to be built before the
// others are left for another time.
const maxFailures = 3

var errLeaseEnded = errors.New("the group's lease has ended")

// bringAll brings a peer its shards of all packs of an action that are still
// wanted, one after the other, and returns those that lie there now. It ends
// early where the peer does not take them.
func (l *Loop) bringAll(ctx context.Context, a health.Action, g group.Group) (stored group.Bitmap, failed error) {
	word, _, err := l.c.Account.Lease(a.Group)
	if err != nil {
		return stored, fmt.Errorf("lease of group %v: %w", a.Group, err)
	}
	lease, err := group.ParseLease(word)
	if err != nil {
		return stored, err
	}
	if lease.Until <= l.c.Now().Unix() {
		return stored, fmt.Errorf("group %v: %w", a.Group, errLeaseEnded)
	}
	if stored, err = l.stillThere(ctx, a, g, lease.Number); err != nil {
		return stored, err
	}
	if a.Back {
		return stored, nil
	}
	failures := 0
	for _, n := range l.inTurn(a.Packs.Without(stored)) {
		if !l.wants(a.Group, n) {
			continue
		}
		err := l.bring(ctx, a, g, word, n)
		if ctx.Err() != nil && err != nil {
			return stored, ctx.Err()
		}
		if err == nil {
			stored.Add(n)
			failures = 0
			continue
		}
		failed, failures = err, failures+1
		if _, ok := errors.AsType[*targetError](err); ok || failures == maxFailures {
			return stored, failed
		}
	}
	return stored, failed
}

// inTurn lists the numbers of some packs, each time in another order: so those that cannot
// be built keep no others from being tried, however often they are.
func (l *Loop) inTurn(packs group.Bitmap) (numbers []uint16) {
	for n := range uint16(group.MaxPacks) {
		if packs.Has(n) {
			numbers = append(numbers, n)
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.c.Rand.Shuffle(len(numbers), func(i, j int) { numbers[i], numbers[j] = numbers[j], numbers[i] })
	return numbers
}

var errOldLease = errors.New("it had a slot of the group, and did not take its newest lease")

// stillThere is what need not be brought: what a former holder that gets its slot
// back says to have, once it has the newest lease, after which no release that was
// sent before has it deleted. It fails for one that does not take that lease.
func (l *Loop) stillThere(ctx context.Context, a health.Action, g group.Group, lease uint64) (there group.Bitmap, err error) {
	if a.Kind != health.Move || !slices.Contains(g.Former, group.Former{Holder: a.Peer, Slot: a.Slot}) {
		return there, nil
	}
	st, err := l.statement(ctx, a)
	l.met(ctx, a.Peer, err)
	if err == nil && st.Lease < lease {
		err = errOldLease
	}
	if err != nil {
		return there, &targetError{err}
	}
	return st.Held.Within(a.Packs), nil
}

// wants reports whether a pack is still wanted.
func (l *Loop) wants(id group.ID, number uint16) (wanted bool) {
	l.with(func(s *health.State, now time.Time) { _, wanted = s.Pack(id, number, now) })
	return wanted
}

// bring gives a peer its shard of one pack.
func (l *Loop) bring(ctx context.Context, a health.Action, g group.Group, lease []byte, number uint16) error {
	ref, err := l.refOf(ctx, g, number)
	if err != nil {
		return err
	}
	shard, err := l.build(ctx, ref, a.Slot)
	if err != nil {
		return fmt.Errorf("pack %d of group %v: %w", number, g.ID, err)
	}
	if err := l.c.Shards.StoreShard(ctx, a.Peer, lease, ref.Manifest, a.Slot, shard); err != nil {
		return &targetError{err}
	}
	return nil
}

// build returns a shard of a pack, checked against the manifest: from the pack
// if that is kept here and whole, else from any k others.
func (l *Loop) build(ctx context.Context, ref group.PackRef, slot uint8) ([]byte, error) {
	memory := min(buildMemory, int64(ref.Coding.N)*int64(ref.Coding.ShardSize(ref.Class)))
	if err := l.memory.Acquire(ctx, memory); err != nil {
		return nil, err
	}
	defer l.memory.Release(memory)
	pack, err := l.c.Account.Pack(ref.Group, ref.Number)
	if err == nil && len(pack) == ref.Class.Size() {
		m, err := l.c.Shards.Manifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		shard, err := cut(ref, pack, slot)
		if err != nil {
			return nil, err
		}
		if erasure.RootOf(shard) == m.Roots[slot] {
			return shard, nil
		}
		l.c.Log.Warn("a pack kept here is damaged", "group", ref.Group, "number", ref.Number)
	}
	return l.c.Shards.Rebuild(ctx, ref, slot)
}

// cut returns one shard of a pack, which shares nothing with it: so the pack
// need not stay in memory while the shard is on its way.
func cut(ref group.PackRef, pack []byte, slot uint8) ([]byte, error) {
	shards := ref.Coding.Split(ref.Class, pack, nil)
	if slot >= ref.Coding.K {
		if err := ref.Coding.Encode(shards); err != nil {
			return nil, err
		}
	}
	return slices.Clone(shards[slot]), nil
}
