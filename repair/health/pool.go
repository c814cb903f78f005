package health

import (
	"math/rand/v2"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
)

// pool is the peers from which new holders are picked.
type pool struct {
	state *State
	all   []place.Candidate
	rnd   *rand.Rand

	usable []place.Candidate
	byKey  map[group.PeerKey]*place.Candidate // into usable, and copies of the others
}

// pick returns a new holder for a slot of a group. A former holder of another slot
// has to be released first.
func (p *pool) pick(g *keptGroup, slot int) (group.PeerKey, bool) {
	p.prepare()
	if back, ok := p.comeBack(g, slot, false); ok {
		return back, true
	}
	need := int64(g.Wanted.Count()) * int64(g.Coding.ShardSize(g.Class))
	r := place.Request{Slots: 1, Bytes: need}
	for _, slot := range g.Slots {
		r.Beside = p.beside(r.Beside, slot.Holder)
	}
	for _, f := range g.former {
		r.Not = append(r.Not, f.Holder)
	}
	for _, a := range p.state.begun {
		switch {
		case a.Group != g.ID:
		case a.Kind == Move:
			r.Beside = p.beside(r.Beside, a.Peer)
		case a.Kind == Release:
			r.Not = append(r.Not, a.Peer)
		}
	}
	placed, err := place.Choose(r, p.usable, p.rnd)
	if err != nil {
		return group.PeerKey{}, false
	}
	to := placed.Peers[0]
	c := p.byKey[to]
	c.Free -= need
	c.Load++
	return to, true
}

// hasRoom reports whether the holder of a slot has said that it has room for a shard.
func (p *pool) hasRoom(g *keptGroup, slot int) bool {
	p.prepare()
	c, ok := p.byKey[g.Slots[slot].Holder]
	return ok && c.Free >= int64(g.Coding.ShardSize(g.Class))
}

// prepare finds the candidates that answer, as far as we know.
func (p *pool) prepare() {
	if p.byKey != nil {
		return
	}
	p.byKey = make(map[group.PeerKey]*place.Candidate, len(p.all))
	p.usable = make([]place.Candidate, 0, len(p.all))
	for _, c := range p.all {
		if c.Free > 0 && p.isThere(c.Key) {
			p.usable = append(p.usable, c)
			p.byKey[c.Key] = &p.usable[len(p.usable)-1]
			continue
		}
		p.byKey[c.Key] = &c
	}
}

// isThere reports whether a peer answers, as far as we know.
func (p *pool) isThere(key group.PeerKey) bool {
	st := p.state.PeerState(key)
	return st == peers.Alive || st == peers.Unknown
}

func (p *pool) beside(list []place.Candidate, key group.PeerKey) []place.Candidate {
	switch c, ok := p.byKey[key]; {
	case key.IsZero():
		return list
	case ok:
		return append(list, *c)
	}
	return append(list, place.Candidate{Key: key})
}
