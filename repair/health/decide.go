package health

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/audit"
)

// Kind is what an action does.
type Kind uint8

// The kinds of actions, and what ends them.
const (
	Ask     Kind = iota + 1 // ask a holder for its statement on a group: Stated or Missed
	Prove                   // audit one shard: Audited
	Refill                  // bring a holder shards that its slot lacks: Refilled or Failed
	Move                    // build a slot's shards at another holder: Moved or Failed
	Release                 // have a former holder delete what it has: Released or Unreleased
	Cancel                  // a Move of this group and slot is not needed any more; its own end ends it
)

var kindNames = [...]string{"", "ask", "prove", "refill", "move", "release", "cancel"}

// String is the kind in one word.
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Action is something to be done. It is comparable. Who runs it reports its
// end exactly once, with the very Action, or it counts as under way for ever.
type Action struct {
	Kind      Kind
	Peer      group.PeerKey   // who is asked, audited, given shards or released
	Group     group.ID        //
	Slot      uint8           //
	Packs     group.Bitmap    // Refill, Move: whose shards are to be brought
	Old       group.PeerKey   // Move, Cancel: the holder before, zero if there was none
	Back      bool            // Move: to who held it before, and with what that one still has alone
	Spare     int             // Refill, Move: how many more shards the worst pack of the group can lose
	Challenge audit.Challenge // Prove
}

// task names what an action is about; there is one action for each at a time.
type task struct {
	kind  Kind
	peer  group.PeerKey
	group group.ID
	slot  uint8
	nonce [8]byte
}

func (a Action) task() task {
	switch a.Kind {
	case Ask:
		return task{kind: Ask, peer: a.Peer}
	case Prove:
		return task{kind: Prove, peer: a.Peer, nonce: [8]byte(a.Challenge.Nonce[:8])}
	case Release:
		return task{kind: Release, peer: a.Peer, group: a.Group}
	}
	return task{kind: Move, group: a.Group, slot: a.Slot} // one repair of a slot at a time
}

// underWay is an action that was begun and did not end yet.
type underWay struct {
	Action
	at        time.Time // of the look that began it
	cancelled bool
}

func (s *State) begin(a Action) Action {
	s.begun[a.task()] = underWay{Action: a, at: s.watch.last}
	*s.counterOf(a.Kind)++
	return a
}

func (s *State) end(t task) {
	if a, ok := s.begun[t]; ok {
		delete(s.begun, t)
		*s.counterOf(a.Kind)--
	}
}

func (s *State) counterOf(k Kind) *int {
	switch k {
	case Ask:
		return &s.asks
	case Prove:
		return &s.proofs
	case Release:
		return &s.freeing
	}
	return &s.repairs
}

// Decide returns what is to be done now. It is to be called every Tick, and
// again when actions have ended, as so many of each kind are under way at most.
// candidates are the peers that may become holders, those that hold something
// included; with Free room below zero, those that get nothing, so that it is known where
// they are; it draws from rnd where choices are equal. All repairs of one group come one
// after the other, the most urgent group first.
func (s *State) Decide(now time.Time, candidates []place.Candidate, rnd *rand.Rand) []Action {
	s.watch.look(now, s.cfg.suspectAfter())
	s.presuming = s.presuming && s.stillPresuming()
	s.dated = s.dated && len(s.groups) == 0      // those that come later are new
	for i := len(s.peerOrder) - 1; i >= 0; i-- { // backwards, as the idle ones are taken out
		p := s.peers[s.peerOrder[i]]
		s.judge(p, now)
		if p.kept && now.Sub(p.seen) > s.cfg.patience() {
			p.kept = false
		}
		s.forgetIdle(p)
	}
	s.earn(now)
	actions := append(s.cancels(), s.releases(now)...)
	if !s.paused {
		actions = append(actions, s.decideRepairs(now, candidates, rnd)...)
	}
	for i := range s.peerOrder {
		p := s.peers[s.peerOrder[(s.turn+i)%len(s.peerOrder)]]
		actions = append(actions, s.questions(p, now)...)
	}
	s.turn++
	return actions
}

// earn lets more repairs begin as time passes.
func (s *State) earn(now time.Time) {
	burst := max(1, float64(s.cfg.Pace)/36)
	if s.lastTime.IsZero() {
		s.allowed = burst
	} else if gap := now.Sub(s.lastTime); gap > 0 {
		s.allowed = min(burst, s.allowed+float64(s.cfg.Pace)*float64(gap)/float64(s.cfg.DeadAfter))
	}
	s.lastTime = now
}

// cancels names the moves under way whose slot need not be moved any more.
func (s *State) cancels() []Action {
	var out []Action
	for t, a := range s.begun {
		if a.Kind != Move || a.Back || a.cancelled {
			continue
		}
		g, ok := s.groups[a.Group]
		if !ok || !g.mustMove(int(a.Slot)) {
			out = append(out, Action{Kind: Cancel, Peer: a.Peer, Group: a.Group, Slot: a.Slot, Old: a.Old})
			a.cancelled = true
			s.begun[t] = a
		}
	}
	slices.SortFunc(out, func(a, b Action) int {
		return cmp.Or(compareGroups(a.Group, b.Group), cmp.Compare(a.Slot, b.Slot))
	})
	return out
}

// mustMove reports whether a slot needs another holder.
func (g *keptGroup) mustMove(slot int) bool {
	return g.Slots[slot].Leave || g.shirked(slot) || g.holderState(slot) == peers.Dead
}

// decideRepairs begins repairs, the groups with the fewest spare shards first.
func (s *State) decideRepairs(now time.Time, candidates []place.Candidate, rnd *rand.Rand) []Action {
	var short []*keptGroup
	for _, id := range s.groupOrder {
		g := s.groups[id]
		s.recount(g, now)
		if s.due(g, now) {
			short = append(short, g)
		}
	}
	slices.SortStableFunc(short, func(a, b *keptGroup) int { return cmp.Compare(a.spare(), b.spare()) })
	var out []Action
	pool := &pool{state: s, all: candidates, rnd: rnd}
	for _, g := range short {
		for i := range g.Slots {
			if s.repairs >= s.cfg.Repairs || s.allowed < 1 && !g.urgent() {
				break
			}
			if a, ok := s.repair(g, i, now, pool); ok {
				out = append(out, s.begin(a))
				s.allowed = max(0, s.allowed-1)
			}
		}
	}
	return out
}

// due reports whether a group is to be repaired now, and by us.
func (s *State) due(g *keptGroup, now time.Time) bool {
	if g.Wanted == (group.Bitmap{}) || g.missing() == 0 && !g.leaving {
		return false
	}
	enough := g.leaving || g.missing() >= g.lazy() || g.Local.Contains(g.Wanted) ||
		now.Sub(g.short) >= s.cfg.patience()
	return enough && s.ours(g, now)
}

// ours reports whether it is on this device to repair a group: it is the
// owner's, or the owner had its time and no live holder is nearer to the
// group's id.
func (s *State) ours(g *keptGroup, now time.Time) bool {
	if g.Owned {
		return true
	}
	if g.short.IsZero() || now.Sub(g.short) < s.cfg.ownersTime() {
		return false
	}
	var nearest group.PeerKey
	for i, slot := range g.Slots {
		if g.holderState(i) == peers.Alive && (nearest.IsZero() || nearer(slot.Holder, nearest, g.ID)) {
			nearest = slot.Holder
		}
	}
	return !nearest.IsZero() && nearest == s.cfg.Self
}

// nearer compares distances to an id by XOR.
func nearer(a, b group.PeerKey, id group.ID) bool {
	for i := range id {
		if x, y := a[i]^id[i], b[i]^id[i]; x != y {
			return x < y
		}
	}
	return false
}

// repair returns what to do for a slot, if there is something that can be done
// now.
func (s *State) repair(g *keptGroup, slot int, now time.Time, from *pool) (Action, bool) {
	a := Action{Kind: Refill, Peer: g.Slots[slot].Holder, Group: g.ID, Slot: uint8(slot), Spare: g.spare()}
	if _, begun := s.begun[a.task()]; begun || now.Before(g.kept[slot].retry) {
		return Action{}, false
	}
	if g.mustMove(slot) {
		return s.move(g, a, now, from)
	}
	missing := g.Wanted.Without(g.believed(slot)).Without(g.presumed(slot))
	if a.Packs = missing.Within(g.buildable); a.Packs == (group.Bitmap{}) && missing != a.Packs {
		if back, ok := from.giveBack(g, a); ok {
			return back, true
		}
		if g.holderState(slot) == peers.Alive && !now.Before(g.salvage) && s.isFormerThere(g) {
			// They may have what is lacking, though no slot to give back. It may as well be in
			// vain, after many shards were read: so not for each slot.
			a.Packs, g.salvage = missing, now.Add(s.cfg.salvageIn())
		}
	}
	return a, g.holderState(slot) == peers.Alive && a.Packs != (group.Bitmap{})
}

// move returns the Move of a slot to a new holder. From one that is there only
// all that it has can be moved, or shards would get lost.
func (s *State) move(g *keptGroup, a Action, now time.Time, from *pool) (Action, bool) {
	slot := int(a.Slot)
	if g.buildable == (group.Bitmap{}) {
		return from.giveBack(g, a)
	}
	a.Kind, a.Old, a.Packs = Move, a.Peer, g.buildable
	if g.holderState(slot) != peers.Dead && !a.Packs.Contains(g.believed(slot)) {
		s.stays(g, slot, now, from)
		return Action{}, false
	}
	to, ok := from.pick(g, slot)
	if !ok { // that costs nothing, and somebody may come any time
		g.kept[slot].retry = now.Add(s.cfg.firstRetry())
		s.stays(g, slot, now, from)
		return Action{}, false
	}
	a.Peer = to
	return a, true
}

// stays has the holder of a slot be tried again that gave it up, if it has room by now: there
// is nobody else, or not all that it has can be moved.
func (s *State) stays(g *keptGroup, slot int, now time.Time, all *pool) {
	if !g.kept[slot].gaveUp || !all.hasRoom(g, slot) {
		return
	}
	g.Slots[slot].Leave, g.kept[slot].gaveUp, g.stale = false, false, true
	s.later(g, slot, now)
}
