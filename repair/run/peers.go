package run

import (
	"context"
	"errors"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/health"
)

// usable are the peers in the directory that may become holders.
func (c Config) usable() []place.Candidate {
	var out []place.Candidate
	for _, p := range c.Peers.List() {
		if p.Key != c.Health.Self && !p.HelloAt.IsZero() && p.Free > 0 && p.IsThere() {
			out = append(out, p.Candidate(0))
		}
	}
	return out
}

// fit keeps the candidates that may be tried now, and tells how many slots
// they hold already. Caller holds mu.
func (l *Loop) fit(all []place.Candidate) []place.Candidate {
	load := map[group.PeerKey]int{}
	for _, g := range l.groups {
		for _, p := range g.Slots {
			load[p]++
		}
	}
	now := l.c.Now()
	out := make([]place.Candidate, 0, len(all))
	for _, c := range all {
		if now.Before(l.avoided[c.Key].until) {
			continue
		}
		c.Load = load[c.Key]
		out = append(out, c)
	}
	return out
}

// withOthers adds the holders and the former ones that are no candidates: with no room who
// may have back what it had, with less than none who gets nothing now. They are somewhere
// all the same. Caller holds mu.
func (l *Loop) withOthers(out []place.Candidate, known []peers.Peer) []place.Candidate {
	fit := make(map[group.PeerKey]bool, len(out))
	for _, c := range out {
		fit[c.Key] = true
	}
	former := map[group.PeerKey]bool{}
	for _, g := range l.groups {
		for _, f := range g.Former {
			former[f.Holder] = true
		}
	}
	now := l.c.Now()
	for _, p := range known {
		if fit[p.Key] || !p.Pinned && !former[p.Key] {
			continue
		}
		c := p.Candidate(0)
		if c.Free = 0; !p.IsThere() || now.Before(l.avoided[p.Key].until) {
			c.Free = -1
		}
		out = append(out, c)
	}
	return out
}

// avoidance says until when a peer that did not take a slot gets no other one.
type avoidance struct {
	until time.Time
	times int
}

// avoid notes that a peer did not take a slot: it is left alone for a while,
// longer each time, up to a third of dead-after.
func (l *Loop) avoid(p group.PeerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, tick := l.c.Now(), l.c.Health.Tick()
	for k, a := range l.avoided { // those long over are forgotten
		if now.Sub(a.until) > 24*tick {
			delete(l.avoided, k)
		}
	}
	a := l.avoided[p]
	a.until = now.Add(min(tick<<min(a.times, 8), 24*tick))
	a.times++
	l.avoided[p] = a
}

// hear tells the state which peers have answered anybody here since the last
// time, or lied to anybody, and returns all that are known. Caller holds step.
func (l *Loop) hear() []peers.Peer {
	known := l.c.Peers.List()
	l.mu.Lock()
	defer l.mu.Unlock()
	heard := make(map[group.PeerKey]time.Time, len(known))
	struck := make(map[group.PeerKey]time.Time, len(known))
	for _, p := range known {
		struck[p.Key] = l.lied(p)
		last, ok := l.heard[p.Key]
		if !ok {
			last = l.begun // what an earlier run saw, it has told its own state
		}
		if p.LastSeen.After(last) {
			l.state.Seen(p.Key, p.LastSeen)
		}
		l.state.Answers(p.Key, p.Misses == 0)
		heard[p.Key] = p.LastSeen
		if p.LastSeen.Before(last) {
			heard[p.Key] = last
		}
	}
	l.heard, l.struck = heard, struck
	return known
}

// lied tells the state of a peer that lied to others than the loop since the
// last time: once, as many reads may have met one fault. It returns the time of
// the last lie that is known. Caller holds mu.
func (l *Loop) lied(p peers.Peer) (struck time.Time) {
	struck, ok := l.struck[p.Key]
	if !p.StruckAt.After(struck) {
		return struck
	}
	if ok {
		l.state.Lied(p.Key, l.c.Now())
	}
	return p.StruckAt
}

// strike notes a lie of which the state is told by itself.
func (l *Loop) strike(p group.PeerKey) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.c.Peers.Strike(p)
	known, _ := l.c.Peers.Get(p)
	l.struck[p] = known.StruckAt
}

// judge tells the directory what is thought of the peers, and which of them
// hold something; also of holders that it does not know yet, as after a recovery: else
// nobody would take note that they do not answer.
func (l *Loop) judge(known []peers.Peer) {
	type verdict struct {
		state peers.State
		holds bool
	}
	verdicts := make([]verdict, len(known))
	holders := map[group.PeerKey]bool{}
	l.with(func(s *health.State, _ time.Time) {
		for _, g := range l.groups {
			for _, p := range g.Slots {
				holders[p] = true
			}
		}
		for i, p := range known {
			verdicts[i] = verdict{s.PeerState(p.Key), holders[p.Key]}
		}
	})
	for i, p := range known {
		l.c.Peers.Judge(p.Key, verdicts[i].state)
		if p.Pinned != verdicts[i].holds {
			l.c.Peers.Pin(p.Key, verdicts[i].holds)
		}
		delete(holders, p.Key)
	}
	for p := range holders {
		if !p.IsZero() && p != l.c.Health.Self {
			l.c.Peers.Heard(p)
			l.c.Peers.Pin(p, true)
		}
	}
}

// met tells the directory how a question to a peer ended that was asked within
// ctx. What ended because ctx did, or waited for other calls, says nothing of the peer.
func (l *Loop) met(ctx context.Context, p group.PeerKey, err error) {
	switch {
	case errors.Is(err, client.ErrLied):
		l.c.Log.Warn("a holder sent what cannot be true", "peer", p, "err", err)
		l.strike(p)
	case spoke(err):
		l.c.Peers.Seen(p, "")
	case ctx.Err() == nil && !errors.Is(err, client.ErrWaited):
		l.c.Peers.Missed(p)
	}
}

// spoke reports whether a call that ended so had an answer, whatever it was.
func spoke(err error) bool {
	for _, answer := range []error{client.ErrAbsent, client.ErrRefused, client.ErrBusy, client.ErrFull, client.ErrCrowded, client.ErrLied} {
		if errors.Is(err, answer) {
			return true
		}
	}
	return err == nil
}
