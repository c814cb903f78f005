package health

import (
	"fmt"
	"math"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
)

// keptGroup is a group with what was counted of it.
type keptGroup struct {
	Group
	kept   []keptSlot
	former []keptFormer // in place of Former

	stale bool // what follows has to be counted anew
	count
	short   time.Time // since when shards are missing; zero while none are
	salvage time.Time // when what cannot be built may be tried again with what former holders have
}

// keptSlot is what is known of a slot beside Slot.
type keptSlot struct {
	holder    *peer        // of the slot; nil if nobody
	disproved group.Bitmap // packs that an audit did not find
	renewed   group.Bitmap // packs that were brought as they were missing
	again     group.Bitmap // packs of these that an audit had not found, and none has since
	brought   time.Time    // when any was brought last
	relost    int          // how often in a row it lost what was brought so
	relostAt  time.Time    // when it did last
	presumed  group.Bitmap // packs that nobody has asked it for yet
	dated     bool         // what it holds is what it said long ago, and presumed
	stated    time.Time    // when it last said what it holds
	missed    time.Time    // when a question to it brought no statement last
	vain      int          // how many in a row brought none
	fails     int          // repairs that failed since one succeeded
	untaken   int          // of these in a row, that its holder did not take
	gaveUp    bool         // its holder did not take what it lacked: for that it shall leave
	retry     time.Time
}

// count is the state of a group's packs.
type count struct {
	live      [group.MaxPacks]uint8 // slots whose shard is believed to be there
	reachable [group.MaxPacks]uint8 // of these, with holders that are alive and answered when last asked
	alive     [group.MaxPacks]uint8 // of those live, with holders that are alive
	unasked   [group.MaxPacks]uint8 // of those live, presumed
	silent    [group.MaxPacks]uint8 // of those live, with holders that were asked and do not answer
	leastLive int                   // of all wanted packs
	buildable group.Bitmap          // wanted packs that can be built now
	leaving   bool                  // a slot shall leave its holder
}

// SetGroup takes in a group, or what changed in one: wanted and local packs,
// holders. Of a slot whose holder stays the same, Held counts for packs that
// were not wanted before: what statements and audits have found since is
// better known here. There must be n slots, with distinct holders.
func (s *State) SetGroup(g Group, now time.Time) {
	if len(g.Slots) != int(g.Coding.N) || !g.Coding.Valid(g.Class) {
		panic(fmt.Sprintf("BUG: health: group of %v with %d slots", g.Coding, len(g.Slots)))
	}
	g.Slots = slices.Clone(g.Slots)
	former := g.Former
	g.Former = nil
	old, ok := s.groups[g.ID]
	if !ok {
		old = &keptGroup{Group: Group{Slots: make([]Slot, len(g.Slots))}, kept: make([]keptSlot, len(g.Slots))}
		s.groups[g.ID] = old
		i, _ := slices.BinarySearchFunc(s.groupOrder, g.ID, compareGroups)
		s.groupOrder = slices.Insert(s.groupOrder, i, g.ID)
	}
	for i := range g.Slots {
		is, was := &g.Slots[i], old.Slots[i]
		if is.Holder == was.Holder {
			is.Held = union(was.Held, is.Held.Without(old.Wanted))
			is.Leave = is.Leave || was.Leave
		}
	}
	was, fresh := old.Slots, g.Wanted.Without(old.Wanted)
	old.Group = g
	s.setFormer(old, former)
	for i := range g.Slots {
		s.changed(old, i)
		if was[i].Holder != g.Slots[i].Holder {
			s.link(old, i, now)
		}
	}
	for i := range g.Slots { // after all are linked, so that a holder that changed slots is not forgotten
		if was[i].Holder != g.Slots[i].Holder {
			s.unlink(was[i].Holder, old, i)
		}
	}
	if !ok && s.dated {
		old.presumeHeld()
		s.presuming = true
	}
	if unknown := fresh.Within(g.Unknown); unknown != (group.Bitmap{}) {
		s.presuming = true
		for i := range g.Slots {
			old.kept[i].presumed.Union(unknown.Without(old.Slots[i].Held))
		}
	}
}

// Presume has all that holders are believed to have be presumed until they are asked again,
// which is due at once: somebody else may have had them delete some of it.
func (s *State) Presume() {
	for _, g := range s.groups {
		g.presumeHeld()
		g.stale = true
	}
	s.presuming = len(s.groups) > 0
}

// presumeHeld has what holders of the group have be presumed until they are asked.
func (g *keptGroup) presumeHeld() {
	for i, slot := range g.Slots {
		g.kept[i].dated, g.kept[i].vain = !slot.Holder.IsZero(), 0
	}
}

// DropGroup forgets a group. Actions under way for it are left to end.
func (s *State) DropGroup(id group.ID) {
	g, ok := s.groups[id]
	if !ok {
		return
	}
	s.setFormer(g, nil)
	for i, slot := range g.Slots {
		s.unlink(slot.Holder, g, i)
	}
	delete(s.groups, id)
	if i, ok := slices.BinarySearchFunc(s.groupOrder, id, compareGroups); ok {
		s.groupOrder = slices.Delete(s.groupOrder, i, i+1)
	}
}

// Group returns a group as it is known here, with the shards that are believed
// to be there.
func (s *State) Group(id group.ID) (Group, bool) {
	g, ok := s.groups[id]
	if !ok {
		return Group{}, false
	}
	out := g.Group
	out.Slots = slices.Clone(g.Slots)
	for i := range out.Slots {
		out.Slots[i].Held = g.believed(i)
	}
	for _, f := range g.former {
		out.Former = append(out.Former, f.Former)
	}
	return out, true
}

// gained notes shards that a slot has got.
func (s *State) gained(g *keptGroup, slot int, packs group.Bitmap, now time.Time) {
	k := &g.kept[slot]
	k.brought = now
	g.Slots[slot].Held.Union(packs)
	k.renewed.Union(packs)
	k.again.Union(k.disproved.Within(packs))
	k.disproved = k.disproved.Without(packs)
	k.presumed = k.presumed.Without(packs)
	s.changed(g, slot)
}

// changed has everything counted anew that depends on what a slot holds.
func (s *State) changed(g *keptGroup, slot int) {
	g.stale = true
	if p := g.kept[slot].holder; p != nil {
		p.holdings = nil
	}
}

// link notes that a slot has a new holder, of which nothing is known there.
func (s *State) link(g *keptGroup, slot int, now time.Time) {
	g.kept[slot] = keptSlot{}
	key := g.Slots[slot].Holder
	if key.IsZero() {
		return
	}
	p := s.peerOf(key, now)
	p.kept = false
	p.slots = append(p.slots, slotRef{g, slot})
	p.holdings = nil
	g.kept[slot].holder = p
}

func (s *State) unlink(key group.PeerKey, g *keptGroup, slot int) {
	if p, ok := s.peers[key]; ok {
		p.slots = slices.DeleteFunc(p.slots, func(r slotRef) bool { return r == slotRef{g, slot} })
		p.holdings = nil
		if len(p.slots) == 0 {
			s.settle(p, func(owed) bool { return true })
		}
		s.forgetIdle(p)
	}
}

// forgetIdle drops a peer that holds nothing, unless its lies or its silence are
// to be remembered, or it was restored and its groups may come yet. One that
// stays silent is forgotten after as long as a lie is.
func (s *State) forgetIdle(p *peer) {
	silent := (p.state == peers.Suspect || p.state == peers.Dead) && s.watch.last.Sub(p.seen) <= s.cfg.LieMemory()
	if len(p.slots) > 0 || len(p.lies) > 0 || p.kept || silent {
		return
	}
	s.forget(p)
}

func (s *State) forget(p *peer) {
	delete(s.peers, p.key)
	if i, ok := slices.BinarySearchFunc(s.peerOrder, p.key, comparePeers); ok {
		s.peerOrder = slices.Delete(s.peerOrder, i, i+1)
	}
}

// holderState is the state of a slot's holder; nobody is dead.
func (g *keptGroup) holderState(slot int) peers.State {
	if p := g.kept[slot].holder; p != nil {
		return p.state
	}
	return peers.Dead
}

// shirked reports whether a slot's holder owes proofs for so long that it shall leave.
func (g *keptGroup) shirked(slot int) bool {
	p := g.kept[slot].holder
	return p != nil && p.shirks
}

// believed is what a slot's holder has of what is wanted, as far as we know.
func (g *keptGroup) believed(slot int) group.Bitmap {
	return g.Slots[slot].Held.Without(g.kept[slot].disproved).Within(g.Wanted)
}

// presumed is what a slot's holder may have as well, as it was not asked yet.
func (g *keptGroup) presumed(slot int) group.Bitmap {
	return g.kept[slot].presumed.Without(g.Slots[slot].Held).Within(g.Wanted)
}

// isPresumed reports whether some of what a slot's holder has is only presumed.
func (g *keptGroup) isPresumed(slot int) bool {
	return g.presumed(slot) != group.Bitmap{} || g.kept[slot].dated && g.believed(slot) != group.Bitmap{}
}

// recount counts the group's packs if anything has changed since.
func (s *State) recount(g *keptGroup, now time.Time) {
	if !g.stale {
		return
	}
	g.stale = false
	g.count = count{leastLive: math.MaxInt}
	for i, slot := range g.Slots {
		g.leaving = g.leaving || slot.Leave || g.shirked(i)
		state := g.holderState(i)
		if state == peers.Dead {
			continue
		}
		silent, dated := state == peers.Suspect || g.kept[i].holder.silent, g.kept[i].dated
		held := g.believed(i)
		each(held, func(n uint16) {
			g.live[n]++
			if state == peers.Alive {
				g.alive[n]++
			}
			if dated {
				g.unasked[n]++
			}
			if silent {
				g.silent[n]++
			} else if state == peers.Alive && !dated {
				g.reachable[n]++
			}
		})
		if g.kept[i].presumed == (group.Bitmap{}) {
			continue
		}
		each(g.presumed(i), func(n uint16) {
			g.live[n]++
			g.unasked[n]++
			if silent {
				g.silent[n]++
			}
		})
	}
	// One question that was missed is for status alone: a repair finds out by itself.
	each(g.Wanted, func(n uint16) {
		g.leastLive = min(g.leastLive, int(g.live[n]))
		if g.Local.Has(n) || g.alive[n] >= g.Coding.K {
			g.buildable.Add(n)
		}
	})
	switch {
	case g.missing() == 0:
		g.short = time.Time{}
	case g.short.IsZero():
		g.short = now
	}
}

// missing is how many shards the worst pack lacks.
func (g *keptGroup) missing() int {
	if g.leastLive == math.MaxInt {
		return 0 // nothing is wanted
	}
	return int(g.Coding.N) - g.leastLive
}

// spare is how many more shards the worst pack can lose.
func (g *keptGroup) spare() int { return int(g.Coding.N) - int(g.Coding.K) - g.missing() }

// lazy is how many shards of a pack have to be missing before they are
// rebuilt for their own sake.
func (g *keptGroup) lazy() int { return max(1, int(g.Coding.N-g.Coding.K)/6) }

// urgent reports whether half of what may be lost is lost.
func (g *keptGroup) urgent() bool { return 2*g.missing() > int(g.Coding.N-g.Coding.K) }

// each calls f for each pack in the set, in order.
func each(set group.Bitmap, f func(n uint16)) {
	for i, b := range set {
		for j := uint16(0); b != 0; j, b = j+1, b>>1 {
			if b&1 != 0 {
				f(uint16(i)*8 + j)
			}
		}
	}
}

func union(a, b group.Bitmap) group.Bitmap {
	a.Union(b)
	return a
}
