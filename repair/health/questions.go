package health

import (
	"slices"
	"time"

	"skep/net/peers"
	"skep/repair/audit"
)

// questions returns the statement and the audits that are due from a peer.
func (s *State) questions(p *peer, now time.Time) []Action {
	if len(p.slots) == 0 || p.key == s.cfg.Self {
		return nil
	}
	var out []Action
	if a, ok := s.ask(p, now); ok {
		out = append(out, a)
	}
	if p.state == peers.Alive && s.cfg.Leaves > 0 {
		out = append(out, s.prove(p, now)...)
	}
	return out
}

// minAskInterval is how long after a question that brought nothing a peer is asked again
// about what it was never asked: it may fail at once, and each end is followed by a look.
const minAskInterval = time.Second

// ask asks a peer about its slots in turn: about each three times in a
// dead-after, and about one or other at least 36 times, so that silence is
// noticed; and about those at once of which it was never asked.
func (s *State) ask(p *peer, now time.Time) (Action, bool) {
	every := s.cfg.DeadAfter / time.Duration(min(max(3*len(p.slots), 36), 1080))
	if never := s.neverAsked(p, every, now); never >= 0 && now.Sub(p.missed) >= minAskInterval {
		p.turn, every = never, 0
	}
	a := Action{Kind: Ask, Peer: p.key}
	if _, begun := s.begun[a.task()]; begun || s.asks >= s.cfg.Asks || now.Sub(p.asked) < every {
		return Action{}, false
	}
	p.asked = now
	r := p.slots[p.turn%len(p.slots)]
	p.turn++
	a.Group, a.Slot = r.group.ID, uint8(r.slot)
	return s.begin(a), true
}

// neverAsked is a slot of a peer that is there of which it is only presumed what
// it holds; -1 if there is none that is due. One of which a question brought nothing is
// due after minAskInterval, then after longer and longer, and in the end in its turn with
// all: so it keeps neither the others of the peer from being asked about, nor those that
// were.
func (s *State) neverAsked(p *peer, every time.Duration, now time.Time) int {
	if !s.presuming || p.state != peers.Alive {
		return -1
	}
	return slices.IndexFunc(p.slots, func(r slotRef) bool {
		k := &r.group.kept[r.slot]
		pause := minAskInterval<<min(k.vain, 20) - minAskInterval // none at first
		return r.group.isPresumed(r.slot) && now.Sub(k.missed) >= pause && pause < every
	})
}

// stillPresuming reports whether anything is only presumed.
func (s *State) stillPresuming() bool {
	for _, g := range s.groups {
		for i := range g.kept {
			if g.isPresumed(i) {
				return true
			}
		}
	}
	return false
}

// maxAuditsAtOnce bounds how many audits of one peer begin in one Decide.
const maxAuditsAtOnce = 8

// minAuditInterval bounds how often a peer is audited, however short the time
// scale.
const minAuditInterval = time.Second

// prove begins the audits of a peer that are due.
func (s *State) prove(p *peer, now time.Time) []Action {
	if p.due == 0 && now.Before(p.audited) || s.proofs >= s.cfg.Proofs {
		return nil
	}
	s.list(p)
	leaves := min(uint64(s.cfg.Leaves), p.leaves)
	if leaves == 0 {
		p.audited = now.Add(s.cfg.firstRetry())
		return nil
	}
	every := max(s.cfg.auditsIn()*audit.Samples/time.Duration(leaves), minAuditInterval)
	if now.Sub(p.audited) > maxAuditsAtOnce*every {
		p.audited = now // what was not done while we were away is not made up for
	}
	var out []Action
	for (p.due > 0 || !now.Before(p.audited)) && s.proofs < s.cfg.Proofs && len(out) < maxAuditsAtOnce {
		due := p.due > 0
		if due {
			p.due--
		} else {
			p.audited = p.audited.Add(every)
		}
		s.counter++
		if c, ok := audit.Pick(s.cfg.Seed, p.key, s.counter, p.holdings); ok {
			c = p.again(c, due)
			out = append(out, s.begin(Action{Kind: Prove, Peer: p.key, Group: c.Group, Slot: c.Slot, Challenge: c}))
		}
	}
	return out
}

// list lists what a peer is believed to hold, and what it owes, if that has changed. It owes
// no proof of what nobody wants any more, nor of a slot that it has not.
func (s *State) list(p *peer) {
	if p.holdings != nil {
		return
	}
	s.settle(p, func(owed owed) bool {
		return !slices.ContainsFunc(p.slots, owed.isIn)
	})
	p.holdings = make([]audit.Holding, 0, len(p.slots))
	for _, r := range p.slots {
		p.holdings = append(p.holdings, audit.Holding{
			Group: r.group.ID, Slot: uint8(r.slot), Packs: union(r.group.believed(r.slot), s.owedOf(p, r)),
			ShardSize: r.group.Coding.ShardSize(r.group.Class),
		})
	}
	p.leaves = audit.Leaves(p.holdings)
}
