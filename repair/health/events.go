package health

import (
	"cmp"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/repair/audit"
)

// Seen notes that a peer answered, whatever it was asked.
func (s *State) Seen(key group.PeerKey, now time.Time) {
	if now.After(s.watch.answered) {
		s.watch.answered = now
	}
	if f := s.formers[key]; f != nil {
		f.there = true
	}
	p, ok := s.peers[key]
	if !ok {
		return
	}
	if p.state != peers.Alive { // it is back
		for _, r := range p.slots {
			r.group.kept[r.slot].vain = 0
		}
	}
	p.seen, p.seenWatch, p.heard = now, s.watch.total, true
	s.Answers(key, true)
	p.speaks(now, s.cfg.moment())
	s.judge(p, now)
}

// Answers notes whether a peer answered the last question that anybody put to it. One
// that did not is not judged for that: it may be there again in a moment. But what it
// holds counts as silent in Report and Pack until it answers.
func (s *State) Answers(key group.PeerKey, does bool) {
	p, ok := s.peers[key]
	if !ok || p.silent == !does {
		return
	}
	p.silent = !does
	for _, r := range p.slots {
		r.group.stale = true
	}
}

// Missed notes that a question brought no statement. Silence speaks for itself, so
// this only ends the question that was asked.
func (s *State) Missed(key group.PeerKey, now time.Time) {
	t := task{kind: Ask, peer: key}
	a, asked := s.begun[t]
	s.end(t)
	if p, ok := s.peers[key]; ok {
		p.missed = now
	}
	if g, ok := s.groups[a.Group]; asked && ok && int(a.Slot) < len(g.kept) && g.Slots[a.Slot].Holder == key {
		k := &g.kept[a.Slot]
		k.missed, k.vain = now, k.vain+1
	}
}

// Stated takes in a holder's statement, whose signature was checked. It ends
// the question that was asked. It reports whether the peer is caught in a lie, as Audited
// does.
func (s *State) Stated(st group.Statement, now time.Time) (caught bool) {
	s.end(task{kind: Ask, peer: st.Holder})
	s.Seen(st.Holder, now)
	g, ok := s.groups[st.Group]
	if !ok || int(st.Slot) >= len(g.Slots) {
		return false
	}
	slot, kept := &g.Slots[st.Slot], &g.kept[st.Slot]
	if slot.Holder != st.Holder {
		return false
	}
	kept.stated, kept.vain = now, 0
	caught = s.lostAgain(g, int(st.Slot), st.Held, now)
	if slot.Held != st.Held || kept.presumed != (group.Bitmap{}) || kept.dated {
		slot.Held, kept.presumed, kept.dated = st.Held, group.Bitmap{}, false
		s.changed(g, int(st.Slot))
	}
	return caught
}

// maxRelost is how often in a row, never a dead-after apart, a holder may have lost what it
// was brought.
const maxRelost = 5

// lostAgain counts how often a holder that was brought what it lacked does not state it. One
// that loses it again and again takes it for nothing: that is a lie in the end, and the
// slot goes to another.
func (s *State) lostAgain(g *keptGroup, slot int, held group.Bitmap, now time.Time) (caught bool) {
	k := &g.kept[slot]
	if gone := k.renewed.Within(g.Wanted).Without(held); gone == (group.Bitmap{}) {
		return false
	}
	k.renewed = k.renewed.Within(held)
	if now.Sub(k.relostAt) > s.cfg.DeadAfter {
		k.relost = 0
	}
	k.relostAt = now
	if k.relost++; k.relost < maxRelost {
		return false
	}
	k.relost, k.gaveUp, g.Slots[slot].Leave, g.stale = 0, true, true, true
	s.Lied(g.Slots[slot].Holder, now)
	return true
}

// Lied notes that a peer sent what cannot be true. That a holder lied about a
// shard in an audit, Audited notes.
func (s *State) Lied(key group.PeerKey, now time.Time) {
	if key.IsZero() || key == s.cfg.Self {
		return
	}
	if _, known := s.peers[key]; !known {
		s.forgetLiars()
	}
	p := s.peerOf(key, now)
	p.lies = append(p.lies, now)
	if len(p.lies) > MaxLies {
		p.lies = p.lies[1:]
	}
	s.judge(p, now)
}

// maxLiars bounds how many peers that hold nothing are remembered for their lies: anybody
// can come under as many names as he likes.
const maxLiars = 4096

// forgetLiars makes room for one more: of those that hold nothing, who lied least often is
// forgotten, and of these who did so first.
func (s *State) forgetLiars() {
	var idle []*peer
	for _, p := range s.peers {
		if len(p.slots) == 0 && len(p.lies) > 0 {
			idle = append(idle, p)
		}
	}
	if len(idle) < maxLiars {
		return
	}
	s.forget(slices.MinFunc(idle, func(a, b *peer) int {
		return cmp.Or(cmp.Compare(len(a.lies), len(b.lies)), a.lies[len(a.lies)-1].Compare(b.lies[len(b.lies)-1]), comparePeers(a.key, b.key))
	}))
}

// Audited takes in what an audit found. a must be the action. It reports whether the
// peer is caught in a lie that its answer alone does not show: it has owed a proof for too
// long, or has taken a shard, again, that it has not. Such a lie is noted here, as
// one that the answer shows.
func (s *State) Audited(a Action, o audit.Outcome, now time.Time) (caught bool) {
	asked := s.begun[a.task()].at
	s.end(a.task())
	if o.Answered() {
		s.Seen(a.Peer, now)
	}
	p, ok := s.peers[a.Peer]
	if !ok {
		return false
	}
	caught = s.owes(p, shard{a.Group, a.Slot, a.Challenge.Number}, o, now)
	if o == audit.Proved {
		p.proved = now
	}
	if o.Lie() {
		s.Lied(a.Peer, now)
	}
	g, ok := s.groups[a.Group]
	if !ok || int(a.Slot) >= len(g.Slots) || g.Slots[a.Slot].Holder != a.Peer {
		return caught
	}
	return s.found(g, int(a.Slot), a.Challenge.Number, o, asked, now) || caught
}

// found notes whether a slot's holder has a shard, and reports whether it is caught in a
// lie. That a shard is gone is none; that one is gone is that was brought anew after an
// audit had not found it: else who states all, takes all and keeps nothing would have its
// slot for ever.
func (s *State) found(g *keptGroup, slot int, number uint16, o audit.Outcome, asked, now time.Time) (caught bool) {
	if !g.Wanted.Has(number) {
		return false // it may be deleted
	}
	k := &g.kept[slot]
	switch was := k.disproved.Has(number); {
	case o.Missing() && !was:
		k.disproved.Add(number)
		s.changed(g, slot)
		if caught = o == audit.Absent && k.again.Has(number) && asked.After(k.brought); caught {
			s.Lied(g.Slots[slot].Holder, now)
		}
	case o == audit.Proved:
		k.again.Remove(number)
		if was {
			k.disproved.Remove(number)
			s.changed(g, slot)
		}
	}
	return caught
}

// Refilled ends a Refill: these packs were stored. If some were not, the rest
// is tried again later.
func (s *State) Refilled(a Action, stored group.Bitmap, now time.Time) {
	s.end(a.task())
	s.Seen(a.Peer, now)
	g, ok := s.groups[a.Group]
	if !ok || int(a.Slot) >= len(g.Slots) || g.Slots[a.Slot].Holder != a.Peer {
		return
	}
	if stored != (group.Bitmap{}) {
		g.salvage = time.Time{} // there is more where that came from
	}
	s.gained(g, int(a.Slot), stored, now)
	s.succeeded(g, a, stored, now)
}

// Moved ends a Move: the new holder took the slot and stored these packs. A
// slot is not taken from a holder that is there for one that has less, nor
// given to one that has got another slot of the group meanwhile.
func (s *State) Moved(a Action, stored group.Bitmap, now time.Time) {
	s.end(a.task())
	g, ok := s.groups[a.Group]
	if !ok || int(a.Slot) >= len(g.Slots) || g.Slots[a.Slot].Holder != a.Old {
		return
	}
	i := int(a.Slot)
	has := g.believed(i)
	gone := g.holderState(i) == peers.Dead
	other := slices.ContainsFunc(g.Slots, func(slot Slot) bool { return slot.Holder == a.Peer })
	less := !stored.Contains(has) || a.Back && stored == has
	if stored == (group.Bitmap{}) || other || !gone && less {
		if a.Back {
			s.laterFormer(g, a.Peer, now)
		}
		s.later(g, i, now)
		return
	}
	s.unlink(a.Old, g, i)
	g.Slots[i] = Slot{Holder: a.Peer, Held: stored}
	s.forgetFormer(g, a.Peer)
	g.stale = true
	s.link(g, i, now)
	s.Seen(a.Peer, now)
	s.succeeded(g, a, stored, now)
}

// Blame says why a repair came to nothing.
type Blame uint8

const (
	Ours      Blame = iota // it could not be built, or was cancelled
	Theirs                 // the peer did not take it
	Unwilling              // nor will it, however often it is asked: it is full, or refuses the slot
)

// maxUntaken is how often in a row a holder that answers may fail to take what its
// slot lacks.
const maxUntaken = 5

// Failed ends an action that came to nothing, or was cancelled. The slot of a holder
// that is unwilling, or has failed too often, goes to another one.
func (s *State) Failed(a Action, why Blame, now time.Time) {
	s.end(a.task())
	g, ok := s.groups[a.Group]
	if !ok || int(a.Slot) >= len(g.Slots) || (a.Kind != Refill && a.Kind != Move) {
		return
	}
	if a.Kind == Refill && g.Slots[a.Slot].Holder == a.Peer && g.kept[a.Slot].givesUp(why) {
		g.Slots[a.Slot].Leave, g.kept[a.Slot].gaveUp = true, true
		g.stale = true
		return
	}
	if a.Back { // there may be another one that has more
		s.laterFormer(g, a.Peer, now)
	}
	s.later(g, int(a.Slot), now)
}

// givesUp counts what a slot's holder did not take, and reports whether that is
// enough.
func (k *keptSlot) givesUp(why Blame) bool {
	if why != Ours {
		k.untaken++
	}
	return why == Unwilling || k.untaken >= maxUntaken
}

// succeeded notes that a repair brought something, or all.
func (s *State) succeeded(g *keptGroup, a Action, stored group.Bitmap, now time.Time) {
	g.kept[a.Slot].untaken = 0
	if stored.Contains(a.Packs.Within(g.Wanted)) {
		g.kept[a.Slot].fails, g.kept[a.Slot].retry = 0, time.Time{}
		return
	}
	s.later(g, int(a.Slot), now)
}

// later puts off the next attempt, longer each time.
func (s *State) later(g *keptGroup, slot int, now time.Time) {
	k := &g.kept[slot]
	k.retry = now.Add(s.cfg.backoff(k.fails))
	k.fails++
}
