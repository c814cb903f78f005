package health

import (
	"slices"
	"time"

	"skep/chunker/group"
	"skep/repair/audit"
)

// A peer that is there but gives no proof that counts owes a proof of the shard it was
// asked for, and is asked for it again. One that it has owed for dead-after, and was asked
// for so often in vain, is taken for gone, and that it was stated for a lie.
const maxEvasions = 8

// maxOwed is how many shards are remembered that a peer owes a proof of; what it does not
// prove beside these is not lost sight of, as all are drawn again and again.
const maxOwed = 32

// shard names a shard that a holder has.
type shard struct {
	group  group.ID
	slot   uint8
	number uint16
}

// owed is a shard that a peer owes a proof of.
type owed struct {
	shard
	since time.Duration // the watch then
	vain  int           // how often it was asked for it in vain
	mute  time.Time     // when no answer came last; zero if it was heard since
}

// owes takes note of an audit that brought no proof that counts though the peer was there,
// or of one that brought what it owed. It reports whether the peer is caught in a lie:
// slow, busy or away anybody is for some hours; who gives no proof of a shard in all of a
// dead-after does not have it. What it proves beside that counts, until it is elsewhere.
func (s *State) owes(p *peer, of shard, o audit.Outcome, now time.Time) (caught bool) {
	if !o.Evasive() {
		if o.Answered() {
			s.settle(p, func(owed owed) bool { return owed.shard == of })
		}
		return false
	}
	i := slices.IndexFunc(p.owed, func(owed owed) bool { return owed.shard == of })
	if i < 0 {
		if len(p.owed) == maxOwed || !slices.ContainsFunc(p.slots, of.isIn) {
			return false
		}
		i = len(p.owed)
		p.owed = append(p.owed, owed{shard: of, since: s.watch.total})
		p.holdings = nil
	}
	if o == audit.Silent && now.Sub(p.seen) > s.cfg.moment() { // it may be away
		p.owed[i].mute, p.muted = now, true
	} else {
		p.owed[i].vain++
	}
	if !s.isGone(p.owed[i]) {
		return false
	}
	if caught = !p.shirks; caught {
		p.shirks = true
		s.Lied(p.key, now)
	}
	for _, r := range p.slots {
		s.owedOf(p, r)
		s.changed(r.group, r.slot) // it is to leave all of them
	}
	return caught
}

// isGone reports whether what is owed is taken for gone.
func (s *State) isGone(o owed) bool {
	return o.vain >= maxEvasions && s.watch.total-o.since >= s.cfg.DeadAfter
}

// settle takes what the peer owes no more from what it owes.
func (s *State) settle(p *peer, settled func(owed) bool) {
	p.owed = slices.DeleteFunc(p.owed, settled)
	if !p.shirks || slices.ContainsFunc(p.owed, s.isGone) {
		return
	}
	p.shirks = false
	for _, r := range p.slots {
		r.group.stale = true
	}
}

// speaks notes that a peer was heard at a time. What it gave no answer to a moment before
// or after, it was asked for in vain; who was away for longer was just away. It is asked for
// all that it owes at once: who is there proves it, or is silent a moment after it was heard.
func (p *peer) speaks(at time.Time, moment time.Duration) {
	if !p.muted {
		return
	}
	p.muted = false
	for i := range p.owed {
		o := &p.owed[i]
		switch {
		case o.mute.IsZero():
			continue
		case at.Sub(o.mute).Abs() <= moment:
			o.vain++
		case at.Before(o.mute): // it was heard long before that
			p.muted = true
			continue
		}
		o.mute = time.Time{}
		p.due = len(p.owed)
	}
}

// again has half of a peer's audits ask for what it owes, as long as it owes anything: the
// others go on, so that owing one proof does not save it the others. Which of them, the
// nonce decides, which nobody can foresee. Those that are due now all ask for that.
func (p *peer) again(c audit.Challenge, due bool) audit.Challenge {
	if len(p.owed) == 0 || !due && c.Nonce[0]&1 != 0 {
		return c
	}
	owed := p.owed[0]
	p.owed = append(p.owed[1:], owed) // all in turn
	i := slices.IndexFunc(p.slots, owed.isIn)
	if i < 0 {
		return c // nobody wants it any more
	}
	of := p.slots[i].group
	c.Group, c.Slot, c.Number = owed.group, owed.slot, owed.number
	c.Count = audit.Count(of.Coding.ShardSize(of.Class))
	return c
}

// isIn reports whether the shard is one of a slot, and wanted.
func (s shard) isIn(r slotRef) bool {
	return r.group.ID == s.group && r.slot == int(s.slot) && r.group.Wanted.Has(s.number)
}

// owedOf is what a peer owes of a slot. What counts as gone of that is disproved, whatever
// a statement has said since.
func (s *State) owedOf(p *peer, r slotRef) (packs group.Bitmap) {
	for _, owed := range p.owed {
		if !owed.isIn(r) {
			continue
		}
		packs.Add(owed.number)
		if s.isGone(owed) {
			r.group.kept[r.slot].disproved.Add(owed.number)
			r.group.stale = true
		}
	}
	return packs
}
