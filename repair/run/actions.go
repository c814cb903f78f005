package run

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/repair/audit"
	"skep/repair/health"
)

// ask asks a holder what it holds of a group, and brings it the newest lease if
// it does not know that.
func (l *Loop) ask(ctx context.Context, a health.Action) {
	ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
	defer cancel()
	st, err := l.c.Holders.Statement(ctx, a.Peer, a.Group)
	if errors.Is(err, client.ErrAbsent) { // it is there, and has nothing
		st, err = group.Statement{Holder: a.Peer, Group: a.Group, Slot: a.Slot}, nil
	}
	if err == nil {
		if word, number, lerr := l.c.Account.Lease(a.Group); lerr == nil && st.Lease < number {
			if newer, aerr := l.c.Holders.Admit(ctx, a.Peer, word, a.Slot); aerr == nil {
				st = newer
			}
		}
	}
	l.with(func(s *health.State, now time.Time) {
		switch {
		case err == nil:
			s.Stated(st, now)
			return
		case errors.Is(err, client.ErrLied):
			s.Lied(a.Peer, now)
		case errors.Is(err, client.ErrRefused), errors.Is(err, client.ErrBusy):
			s.Seen(a.Peer, now)
		}
		s.Missed(a.Peer, now)
	})
	switch {
	case err == nil:
		l.c.Peers.Seen(a.Peer, "")
		l.acked(a.Group, a.Slot)
	case errors.Is(err, client.ErrLied):
		l.c.Peers.Strike(a.Peer)
	case errors.Is(err, client.ErrUnreachable):
		l.c.Peers.Missed(a.Peer)
	}
	l.judged(a.Peer)
}

// prove audits a shard.
func (l *Loop) prove(ctx context.Context, a health.Action, g group.Group) {
	outcome := l.audit(ctx, a, g)
	l.with(func(s *health.State, now time.Time) { s.Audited(a, outcome, now) })
	switch {
	case outcome.Lie():
		l.c.Log.Warn("a holder does not have what it says", "peer", a.Peer, "group", a.Group, "pack", a.Challenge.Number)
		l.c.Peers.Strike(a.Peer)
	case outcome.Answered():
		l.c.Peers.Seen(a.Peer, "")
	}
	if outcome.Missing() {
		l.acked(a.Group, a.Slot)
	}
	l.judged(a.Peer)
}

func (l *Loop) audit(ctx context.Context, a health.Action, g group.Group) audit.Outcome {
	ch := a.Challenge
	ref, err := l.refOf(ctx, g, ch.Number)
	if err != nil {
		return audit.Unreachable
	}
	m, err := l.c.Shards.Manifest(ctx, ref)
	if err != nil {
		return audit.Unreachable // it could not be asked: we do not know what to ask for
	}
	var roundTrip time.Duration
	if p, ok := l.c.Peers.Get(a.Peer); ok {
		roundTrip = p.RoundTrip
	}
	allowed := audit.Allowed(roundTrip, ch.Count, m.ShardSize())
	ctx, cancel := context.WithTimeout(ctx, 4*allowed)
	defer cancel()
	begin := l.c.Now()
	err = l.c.Holders.Prove(ctx, a.Peer, m, ch.Slot, ch.Nonce, ch.Count)
	return audit.InTime(outcomeOf(err), l.c.Now().Sub(begin), allowed)
}

func outcomeOf(err error) audit.Outcome {
	switch {
	case err == nil:
		return audit.Proved
	case errors.Is(err, client.ErrAbsent):
		return audit.Absent
	case errors.Is(err, client.ErrLied):
		return audit.Corrupt
	case errors.Is(err, client.ErrRefused), errors.Is(err, client.ErrBusy), errors.Is(err, client.ErrFull):
		return audit.Refused
	}
	return audit.Unreachable
}

// repair brings a slot its shards: to its holder, or to a new one.
func (l *Loop) repair(ctx context.Context, a health.Action, g group.Group) {
	var stored group.Bitmap
	var failed error
	for n := range uint16(group.MaxPacks) {
		if !a.Packs.Has(n) || ctx.Err() != nil {
			continue
		}
		if err := l.bring(ctx, a, g, n); err != nil {
			failed = err
			if errors.Is(err, client.ErrFull) || errors.Is(err, client.ErrUnreachable) {
				break
			}
			continue
		}
		stored.Add(n)
	}
	if failed != nil && ctx.Err() == nil {
		l.c.Log.Info("a repair did not bring all", "kind", a.Kind, "peer", a.Peer, "group", a.Group, "slot", a.Slot, "err", failed)
	}
	switch {
	case stored == (group.Bitmap{}):
		l.with(func(s *health.State, now time.Time) { s.Failed(a, errors.Is(failed, client.ErrFull), now) })
	case a.Kind == health.Refill:
		l.with(func(s *health.State, now time.Time) { s.Refilled(a, stored, now) })
		l.acked(a.Group, a.Slot)
	default:
		l.moved(a, stored)
	}
	if errors.Is(failed, client.ErrFull) {
		l.c.Peers.Full(a.Peer)
	}
}

// moved ends a move: if the state takes it, the account has to.
func (l *Loop) moved(a health.Action, stored group.Bitmap) {
	taken := false
	l.with(func(s *health.State, now time.Time) {
		s.Moved(a, stored, now)
		g, ok := s.Group(a.Group)
		taken = ok && g.Slots[a.Slot].Holder == a.Peer
		if taken { // before the account is read again
			if err := l.c.Account.Moved(a.Group, a.Slot, a.Peer); err != nil {
				l.c.Log.Error("a slot's new holder was not noted", "group", a.Group, "slot", a.Slot, "err", err)
			}
		}
	})
	if taken {
		l.c.Log.Info("a slot has a new holder", "group", a.Group, "slot", a.Slot, "holder", a.Peer, "packs", stored.Count())
		l.acked(a.Group, a.Slot)
	}
}

// bring gives a peer its shard of one pack, built from the pack if that is
// here, else from any k others.
func (l *Loop) bring(ctx context.Context, a health.Action, g group.Group, number uint16) error {
	ref, err := l.refOf(ctx, g, number)
	if err != nil {
		return err
	}
	shard, err := l.build(ctx, ref, a.Slot)
	if err != nil {
		return fmt.Errorf("pack %d: %w", number, err)
	}
	lease, _, err := l.c.Account.Lease(a.Group)
	if err != nil {
		return err
	}
	return l.c.Shards.StoreShard(ctx, a.Peer, lease, ref.Manifest, a.Slot, shard)
}

// build returns a shard of a pack, checked against the manifest.
func (l *Loop) build(ctx context.Context, ref group.PackRef, slot uint8) ([]byte, error) {
	if pack, err := l.c.Account.Pack(ref.Group, ref.Number); err == nil && len(pack) == ref.Class.Size() {
		m, err := l.c.Shards.Manifest(ctx, ref)
		if err != nil {
			return nil, err
		}
		shards := ref.Coding.Split(ref.Class, pack)
		if err := ref.Coding.Encode(shards); err != nil {
			return nil, err
		}
		if erasure.RootOf(shards[slot]) == m.Roots[slot] {
			return shards[slot], nil
		}
		l.c.Log.Warn("a pack kept here is damaged", "group", ref.Group, "number", ref.Number)
	}
	m, shards, err := l.c.Shards.ReadShards(ctx, ref)
	if err != nil {
		return nil, err
	}
	if len(shards[slot]) == 0 {
		want := make([]bool, len(shards))
		want[slot] = true
		if err := ref.Coding.Reconstruct(shards, want); err != nil {
			return nil, err
		}
	}
	if erasure.RootOf(shards[slot]) != m.Roots[slot] {
		return nil, fmt.Errorf("rebuilt shard %d does not have its root: %w", slot, client.ErrLied)
	}
	return shards[slot], nil
}
