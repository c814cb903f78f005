package health

import (
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
)

// releasesAtOnce bounds the releases under way.
const releasesAtOnce = 4

// formerPeer is what is known of a peer that is a former holder of some groups.
type formerPeer struct {
	groups int
	there  bool // it has answered somebody since it was out of reach, or may: it was not asked yet
}

// keptFormer is a former holder of one group.
type keptFormer struct {
	group.Former
	fails int // releases that failed, and slots that it had too little for
	retry time.Time
}

// setFormer takes in the former holders of a group, who have no slot of it.
func (s *State) setFormer(g *keptGroup, list []group.Former) {
	was := g.former
	g.former = make([]keptFormer, 0, len(list))
	for _, f := range list {
		if slices.ContainsFunc(g.Slots, func(slot Slot) bool { return slot.Holder == f.Holder }) {
			continue
		}
		k := keptFormer{Former: f}
		if i := slices.IndexFunc(was, func(o keptFormer) bool { return o.Former == f }); i >= 0 {
			k = was[i]
		}
		g.former = append(g.former, k)
		p := s.formers[f.Holder]
		if p == nil {
			p = &formerPeer{there: true}
			s.formers[f.Holder] = p
		}
		p.groups++
	}
	for _, f := range was {
		s.lessFormer(f.Holder)
	}
}

// lessFormer notes that a peer is a former holder of one group less.
func (s *State) lessFormer(key group.PeerKey) {
	p := s.formers[key]
	if p.groups--; p.groups == 0 {
		delete(s.formers, key)
	}
}

// isFormerThere reports whether any former holder of a group is there, as far as is known.
func (s *State) isFormerThere(g *keptGroup) bool {
	return slices.ContainsFunc(g.former, func(f keptFormer) bool { return s.formers[f.Holder].there })
}

// releases begins to have former holders delete what is not wanted of them: those
// that are there, once what they had lies with the holder of the slot.
func (s *State) releases(now time.Time) []Action {
	if len(s.formers) == 0 {
		return nil
	}
	var out []Action
	for _, id := range s.groupOrder {
		g := s.groups[id]
		for i := range g.former {
			if s.freeing >= releasesAtOnce {
				return out
			}
			if a, ok := s.release(g, &g.former[i], now); ok {
				out = append(out, s.begin(a))
			}
		}
	}
	return out
}

func (s *State) release(g *keptGroup, f *keptFormer, now time.Time) (Action, bool) {
	a := Action{Kind: Release, Peer: f.Holder, Group: g.ID, Slot: f.Slot}
	_, begun := s.begun[a.task()]
	if begun || !g.Owned || !s.formers[f.Holder].there || now.Before(f.retry) {
		return Action{}, false
	}
	return a, g.superseded(int(f.Slot)) && !s.movingTo(g.ID, f.Holder)
}

// superseded reports whether a slot's holder is there, with all that is wanted, and owes
// no proof: so that nobody else need have it.
func (g *keptGroup) superseded(slot int) bool {
	if g.Wanted == (group.Bitmap{}) {
		return true
	}
	p := g.kept[slot].holder
	return p != nil && p.state == peers.Alive && len(p.owed) == 0 && g.believed(slot) == g.Wanted
}

// movingTo reports whether a slot of a group is being built at a peer.
func (s *State) movingTo(id group.ID, key group.PeerKey) bool {
	for _, a := range s.begun {
		if a.Kind == Move && a.Group == id && a.Peer == key {
			return true
		}
	}
	return false
}

// Superseded reports whether what anybody but its holder has of a slot of a group
// is not wanted.
func (s *State) Superseded(id group.ID, slot uint8) bool {
	g, ok := s.groups[id]
	return ok && int(slot) < len(g.Slots) && g.superseded(int(slot))
}

// Released ends a release: the peer has nothing of the group any more.
func (s *State) Released(a Action) {
	s.end(a.task())
	if g, ok := s.groups[a.Group]; ok {
		s.forgetFormer(g, a.Peer)
	}
}

func (s *State) forgetFormer(g *keptGroup, key group.PeerKey) {
	if i := g.formerOf(key); i >= 0 {
		g.former = slices.Delete(g.former, i, i+1)
		s.lessFormer(key)
	}
}

// Unreleased ends a release that came to nothing. A peer that was out of reach is
// left alone until it answers somebody.
func (s *State) Unreleased(a Action, away bool, now time.Time) {
	s.end(a.task())
	if p := s.formers[a.Peer]; p != nil && away {
		p.there = false
		return
	}
	if g, ok := s.groups[a.Group]; ok {
		s.laterFormer(g, a.Peer, now)
	}
}

// laterFormer puts off what is next asked of a former holder of a group, longer each time.
func (s *State) laterFormer(g *keptGroup, key group.PeerKey, now time.Time) {
	if i := g.formerOf(key); i >= 0 {
		f := &g.former[i]
		f.retry = now.Add(s.cfg.backoff(f.fails))
		f.fails++
	}
}

func (g *keptGroup) formerOf(key group.PeerKey) int {
	return slices.IndexFunc(g.former, func(f keptFormer) bool { return f.Holder == key })
}

// giveBack returns the Move of a slot of which nothing that is missing can be built to a
// former holder of it: what that one still has need not be, and with it others can. From
// a holder that is there it is taken only for one that has more.
func (p *pool) giveBack(g *keptGroup, a Action) (Action, bool) {
	p.prepare()
	lost := g.buildable == (group.Bitmap{}) && g.holderState(int(a.Slot)) == peers.Dead
	to, ok := p.comeBack(g, int(a.Slot), lost)
	a.Kind, a.Old, a.Peer, a.Back, a.Packs = Move, a.Peer, to, true, g.Wanted
	return a, ok
}

// comeBack is a former holder of a slot that may have it back: it need not be brought what
// it still has. The one that left last has most of that, unless it has had too little more
// often than another. Where all would be lost without it, who lied is asked as well.
func (p *pool) comeBack(g *keptGroup, slot int, lost bool) (back group.PeerKey, ok bool) {
	least := 0
	for _, f := range slices.Backward(g.former) {
		_, freed := p.state.begun[Action{Kind: Release, Peer: f.Holder, Group: g.ID}.task()]
		c, known := p.byKey[f.Holder]
		willing := known && (c.Free >= 0 || lost) && p.isThere(f.Holder) // it need not have room for what it has
		if int(f.Slot) == slot && !freed && !p.state.movingTo(g.ID, f.Holder) && willing && (!ok || f.fails < least) {
			back, ok, least = f.Holder, true, f.fails
		}
	}
	return back, ok
}
