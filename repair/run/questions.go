package run

import (
	"context"
	"errors"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/repair/audit"
	"skep/repair/health"
)

// ask asks a holder what it holds of a group, and brings it the newest lease if
// it does not know that.
func (l *Loop) ask(ctx context.Context, a health.Action) {
	before := l.believed(a.Group, a.Slot)
	st, err := l.statement(ctx, a)
	changed, caught := false, false
	l.with(func(s *health.State, now time.Time) {
		if err != nil {
			switch {
			case errors.Is(err, client.ErrLied):
				s.Lied(a.Peer, now)
			case spoke(err):
				s.Seen(a.Peer, now)
			}
			s.Missed(a.Peer, now)
			return
		}
		// What was brought while it was being asked, it may not have named.
		since := believed(s, a.Group, a.Slot).Without(before)
		st.Held.Union(since)
		caught = s.Stated(st, now)
		changed = believed(s, a.Group, a.Slot) != before
	})
	l.met(ctx, a.Peer, err)
	if caught {
		l.c.Log.Warn("a holder loses again and again what it is brought", "peer", a.Peer, "group", a.Group)
		l.strike(a.Peer)
	}
	if changed {
		l.Refresh()
	}
}

// statement is what a peer says to hold in a slot. One that is there but has
// nothing of the group, or has another slot, holds nothing in this one. Who has
// not seen the newest lease is given it, and with it the slot, should it have
// none.
func (l *Loop) statement(ctx context.Context, a health.Action) (group.Statement, error) {
	ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
	defer cancel()
	nothing := group.Statement{Holder: a.Peer, Group: a.Group, Slot: a.Slot}
	st, err := l.c.Holders.Statement(ctx, a.Peer, a.Group)
	switch {
	case errors.Is(err, client.ErrAbsent):
		st = nothing
	case err != nil:
		return st, err
	case st.Slot != a.Slot:
		nothing.Lease = st.Lease
		st = nothing
	}
	word, number, err := l.c.Account.Lease(a.Group)
	if err != nil {
		l.c.Log.Warn("a lease cannot be given", "group", a.Group, "err", err)
		return st, nil
	}
	if st.Lease >= number {
		return st, nil
	}
	newer, err := l.c.Holders.Admit(ctx, a.Peer, word, a.Slot)
	switch {
	case err == nil && newer.Slot == a.Slot:
		return newer, nil
	case errors.Is(err, client.ErrLied):
		return st, err
	case err != nil:
		l.c.Log.Info("a holder did not take the newest lease", "peer", a.Peer, "group", a.Group, "err", err)
	}
	return st, nil
}

// prove audits a shard, and tells the state what came of it.
func (l *Loop) prove(ctx context.Context, a health.Action, g group.Group) audit.Outcome {
	outcome := l.audit(ctx, a, g)
	var caught bool
	l.with(func(s *health.State, now time.Time) { caught = s.Audited(a, outcome, now) })
	if caught {
		l.c.Log.Warn("a holder has not what it says to have", "outcome", outcome, "peer", a.Peer, "group", a.Group, "pack", a.Challenge.Number)
		l.strike(a.Peer)
	}
	if outcome.Missing() {
		l.c.Log.Warn("an audit did not find a shard", "outcome", outcome, "peer", a.Peer, "group", a.Group, "pack", a.Challenge.Number)
		l.Refresh()
	}
	return outcome
}

// patience is how many times longer than allowed an answer is waited for: what
// comes late shows that the peer is there.
const patience = 4

func (l *Loop) audit(ctx context.Context, a health.Action, g group.Group) audit.Outcome {
	m, err := l.manifest(ctx, g, a.Challenge.Number)
	if err != nil {
		return audit.Unreachable // we do not know what to ask for
	}
	allowed := audit.Allowed(l.roundTrip(a.Peer), a.Challenge.Count, m.ShardSize())
	asking, cancel := context.WithTimeout(ctx, patience*allowed)
	defer cancel()
	sent := l.c.Now()
	asking = client.OnSent(asking, func() { sent = l.c.Now() })
	err = l.c.Holders.Prove(asking, a.Peer, m, a.Challenge.Slot, a.Challenge.Nonce, a.Challenge.Count)
	took, outcome := l.c.Now().Sub(sent), outcomeOf(err)
	if errors.Is(err, client.ErrWaited) || outcome == audit.Unreachable && asking.Err() != nil && took < allowed {
		return audit.Unreachable // its time went by while it waited for other calls of ours
	}
	l.met(ctx, a.Peer, err)
	return l.weigh(ctx, a, g, audit.InTime(outcome, took, allowed))
}

func (l *Loop) manifest(ctx context.Context, g group.Group, number uint16) (*group.Manifest, error) {
	ctx, cancel := context.WithTimeout(ctx, l.c.Timeout)
	defer cancel()
	ref, err := l.refOf(ctx, g, number)
	if err != nil {
		return nil, err
	}
	return l.c.Shards.Manifest(ctx, ref)
}

func (l *Loop) roundTrip(p group.PeerKey) time.Duration {
	known, _ := l.c.Peers.Get(p)
	return known.RoundTrip
}

// weigh looks twice where an audit says less than it seems. A peer from which
// no answer came, but which answers a plain question at once, would not prove
// what it states. And one whose proof came too late is not to blame while
// others are just as slow: then it is our own line that is busy.
func (l *Loop) weigh(ctx context.Context, a health.Action, g group.Group, o audit.Outcome) audit.Outcome {
	switch {
	case ctx.Err() != nil:
		return o
	case o == audit.Unreachable && l.prompt(ctx, a.Peer, g.ID):
		return audit.Refused
	case o == audit.Unreachable && l.prompt(ctx, l.anotherHolder(g, a.Peer), g.ID):
		return audit.Silent
	case o == audit.Late && !l.prompt(ctx, l.anotherHolder(g, a.Peer), g.ID):
		return audit.Unreachable
	}
	return o
}

// promptly is how long a peer may take, beside the round trip, to answer a
// plain question.
const promptly = 2 * time.Second

// prompt reports whether a peer answers at once.
func (l *Loop) prompt(ctx context.Context, p group.PeerKey, id group.ID) bool {
	ctx, cancel := context.WithTimeout(ctx, promptly+2*l.roundTrip(p))
	defer cancel()
	_, err := l.c.Holders.Statement(ctx, p, id)
	return spoke(err)
}

// anotherHolder is some holder of a group, by chance, that is thought to be
// there and is not p; p itself if there is none.
func (l *Loop) anotherHolder(g group.Group, p group.PeerKey) group.PeerKey {
	l.mu.Lock()
	defer l.mu.Unlock()
	var others []group.PeerKey
	for _, o := range g.Slots {
		if o != p && l.state.PeerState(o) == peers.Alive {
			others = append(others, o)
		}
	}
	if len(others) == 0 {
		return p
	}
	return others[l.c.Rand.IntN(len(others))]
}

func outcomeOf(err error) audit.Outcome {
	switch {
	case err == nil:
		return audit.Proved
	case errors.Is(err, client.ErrAbsent):
		return audit.Absent
	case errors.Is(err, client.ErrLied):
		return audit.Corrupt
	case spoke(err):
		return audit.Refused
	}
	return audit.Unreachable
}
