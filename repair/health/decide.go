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
// included; with Free room below zero, those that get nothing, so that it is known where they are; it draws from rnd where choices are equal. All repairs of one group
// come one after the other, the most urgent group first.
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
		return from.giveBack(g, a)
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
	if now.Before(p.audited) || s.proofs >= s.cfg.Proofs {
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
	for !now.Before(p.audited) && s.proofs < s.cfg.Proofs && len(out) < maxAuditsAtOnce {
		p.audited = p.audited.Add(every)
		s.counter++
		if c, ok := audit.Pick(s.cfg.Seed, p.key, s.counter, p.holdings); ok {
			c = p.again(c)
			out = append(out, s.begin(Action{Kind: Prove, Peer: p.key, Group: c.Group, Slot: c.Slot, Challenge: c}))
		}
	}
	return out
}

// again has half of a peer's audits ask for what it owes, as long as it owes anything: the
// others go on, so that owing one proof does not save it the others. Which of them, the
// nonce decides, which nobody can foresee.
func (p *peer) again(c audit.Challenge) audit.Challenge {
	if len(p.owed) == 0 || c.Nonce[0]&1 != 0 {
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
