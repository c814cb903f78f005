package health

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/audit"
)

// world is a swarm as it really is, driven from a seed. The State under test
// sees only what peers answer.
type world struct {
	t          *testing.T
	rnd        *rand.Rand
	cfg        simConfig
	start, now time.Time

	state  *State
	peers  map[group.PeerKey]*simPeer
	order  []group.PeerKey // keys of those that are not gone
	next   int             // number of the next peer
	groups []*simGroup
	byID   map[group.ID]*simGroup
	moving []Action
	tally  tally
}

type simConfig struct {
	seed           uint64
	peers, groups  int
	k, n, packs    int
	days           int
	life           time.Duration // mean time to a peer's end
	up, down       time.Duration // mean times there and away
	liars          int
	catastropheDay int // when a seventh of all peers end at once; 0 is never
}

// tally counts what happened.
type tally struct {
	ended, moves, refills, cancels, failed, rotted, found, released int
	slotsOfEnded, slotsOfAbsent                                     int
	leastLive, leastUsually                                         int // shards of a pack; the second, but for the catastrophe
}

type simPeer struct {
	key       group.PeerKey
	up        bool
	turn      time.Time // when up changes
	downSince time.Time
	upSince   time.Time
	counted   bool // as absent for too long
	ends      time.Time
	liar      bool
	free      int64
	slots     map[slotID]*group.Bitmap // what really is there
}

type slotID struct {
	group group.ID
	slot  uint8
}

// simGroup is the owner's table.
type simGroup struct {
	Group
}

func newWorld(t *testing.T, c simConfig) *world {
	w := &world{
		t: t, cfg: c, now: time.UnixMilli(1_800_000_000_000),
		rnd:   rand.New(rand.NewPCG(c.seed, 42)),
		peers: map[group.PeerKey]*simPeer{},
		byID:  map[group.ID]*simGroup{},
		state: New(Config{Repairs: 64, Asks: 1 << 20, Proofs: 1 << 20, Leaves: 24, Pace: 1 << 16, Seed: [32]byte{byte(c.seed)}}),
	}
	w.tally.leastLive, w.tally.leastUsually = c.n, c.n
	for i := range c.peers {
		w.addPeer(i < c.liars)
	}
	for i := range c.groups {
		w.addGroup(i)
	}
	return w
}

func (w *world) exp(mean time.Duration) time.Duration {
	return time.Duration(w.rnd.ExpFloat64() * float64(mean))
}

func (w *world) addPeer(liar bool) {
	w.next++
	p := &simPeer{
		key: key(w.next), up: true, turn: w.now.Add(w.exp(w.cfg.up)), ends: w.now.Add(w.exp(w.cfg.life)),
		liar: liar, free: 1 << 50, slots: map[slotID]*group.Bitmap{},
	}
	if liar {
		p.ends = w.now.Add(1000 * day)
	}
	w.peers[p.key] = p
	w.order = append(w.order, p.key)
}

func (w *world) candidates() []place.Candidate {
	out := make([]place.Candidate, 0, len(w.order))
	for _, k := range w.order {
		p := w.peers[k]
		if p.up {
			out = append(out, place.Candidate{Key: k, Free: p.free, Availability: 0.85, Load: len(p.slots)})
		}
	}
	return out
}

func (w *world) addGroup(i int) {
	g := &simGroup{Group{
		ID: group.ID{byte(i), byte(i >> 8), 7}, Class: erasure.MaxClass,
		Coding: erasure.NewCoding(w.cfg.k, w.cfg.n), Wanted: packs(w.cfg.packs), Owned: true,
	}}
	placed, err := place.Choose(place.Request{Slots: w.cfg.n, Bytes: 1}, w.candidates(), w.rnd)
	if err != nil {
		w.t.Fatal(err)
	}
	for s, k := range placed.Peers {
		g.Slots = append(g.Slots, Slot{Holder: k, Held: g.Wanted})
		held := g.Wanted
		w.peers[k].slots[slotID{g.ID, uint8(s)}] = &held
	}
	w.groups = append(w.groups, g)
	w.byID[g.ID] = g
	w.state.SetGroup(g.Group, w.now)
}

// tick is how often the State is asked: half as often as it should be.
func (w *world) tick() time.Duration { return 2 * w.state.cfg.Tick() }

// deadline is for how long a peer has to be away at least before it can be
// taken for dead: it may have been heard last some ticks before it left.
func (w *world) deadline() time.Duration { return w.state.cfg.DeadAfter - 3*w.tick() }

// run lives through the days.
func (w *world) run() {
	tick := w.tick()
	end := w.now.Add(time.Duration(w.cfg.days) * day)
	for w.start = w.now; w.now.Before(end); w.now = w.now.Add(tick) {
		w.churn(w.cfg.catastropheDay > 0 && w.now.Sub(w.start)/day == time.Duration(w.cfg.catastropheDay) && w.now.Add(-tick).Sub(w.start)/day < time.Duration(w.cfg.catastropheDay))
		w.finishMoves()
		for _, a := range w.state.Decide(w.now, w.candidates(), w.rnd) {
			w.do(a)
		}
	}
}

// churn lets peers come, go, end, and lose shards.
func (w *world) churn(catastrophe bool) {
	gone := false
	for i, k := range w.order {
		p := w.peers[k]
		if w.now.After(p.ends) || catastrophe && i%7 == 0 && !p.liar {
			w.end(p)
			gone = true
			continue
		}
		if w.now.After(p.turn) {
			p.up = !p.up
			mean := w.cfg.up
			p.upSince = w.now
			if p.up {
				w.state.Seen(k, w.now) // it says hello
			} else {
				p.downSince, p.counted, mean = w.now, false, w.cfg.down
				if w.rnd.IntN(300) == 0 {
					mean = 10 * day // a holiday
				}
			}
			p.turn = w.now.Add(w.exp(mean))
		}
		if !p.up && !p.counted && w.now.Sub(p.downSince) >= w.deadline() {
			p.counted = true
			w.tally.slotsOfAbsent += len(p.slots)
		}
		if len(p.slots) > 0 && w.rnd.IntN(30*12) == 0 {
			w.rot(p)
		}
	}
	if !gone {
		return
	}
	w.order = slices.DeleteFunc(w.order, func(k group.PeerKey) bool { return w.peers[k] == nil })
	for len(w.order) < w.cfg.peers {
		w.addPeer(false)
	}
	w.check()
}

func (w *world) end(p *simPeer) {
	w.tally.ended++
	w.tally.slotsOfEnded += len(p.slots)
	delete(w.peers, p.key)
}

// rot destroys one shard without the holder's knowing.
func (w *world) rot(p *simPeer) {
	ids := make([]slotID, 0, len(p.slots))
	for id := range p.slots {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(a, b slotID) int { return cmp.Or(compareGroups(a.group, b.group), cmp.Compare(a.slot, b.slot)) })
	id := ids[w.rnd.IntN(len(ids))]
	n := uint16(w.rnd.IntN(w.cfg.packs))
	if held := p.slots[id]; held.Has(n) && w.byID[id.group].Slots[id.slot].Holder == p.key {
		held.Remove(n)
		w.tally.rotted++
	}
}

// check fails the test as soon as a pack has fewer than k shards left
// anywhere, on holders that are there or may return.
func (w *world) check() {
	for _, g := range w.groups {
		for n := range uint16(w.cfg.packs) {
			live := 0
			for s, slot := range g.Slots {
				if p := w.peers[slot.Holder]; p != nil && !p.liar {
					if held := p.slots[slotID{g.ID, uint8(s)}]; held != nil && held.Has(n) {
						live++
					}
				}
			}
			w.tally.leastLive = min(w.tally.leastLive, live)
			if !w.recovering() {
				w.tally.leastUsually = min(w.tally.leastUsually, live)
			}
			if live < w.cfg.k {
				w.t.Fatalf("seed %d, %v: pack %d of group %v has %d of %d shards left", w.cfg.seed, w.now, n, g.ID, live, w.cfg.k)
			}
		}
	}
}

// recovering reports whether the catastrophe may show yet: whoever ended in it is dead
// after some days alone, as silence is no loss, and what it had is rebuilt then.
func (w *world) recovering() bool {
	begin := w.start.Add(time.Duration(w.cfg.catastropheDay) * day)
	return w.cfg.catastropheDay > 0 && !w.now.Before(begin) && w.now.Sub(begin) < w.state.cfg.DeadAfter+2*day
}

// do carries out an action; repairs take until the next tick.
func (w *world) do(a Action) {
	p := w.peers[a.Peer]
	up := p != nil && p.up
	switch a.Kind {
	case Ask:
		if !up {
			w.state.Missed(a.Peer, w.now)
			return
		}
		w.state.Stated(w.statement(p, a), w.now)
	case Prove:
		w.state.Audited(a, w.audited(p, up, a), w.now)
	case Refill, Move:
		if a.Kind == Move {
			w.checkReason(a)
		}
		w.moving = append(w.moving, a)
	case Release:
		w.release(p, up, a)
	case Cancel:
		w.tally.cancels++
		i := slices.IndexFunc(w.moving, func(m Action) bool { return m.Kind == Move && m.Group == a.Group && m.Slot == a.Slot })
		if i < 0 {
			w.t.Fatalf("cancelled what was not under way: %+v", a)
		}
		w.state.Failed(w.moving[i], Ours, w.now)
		w.moving = slices.Delete(w.moving, i, i+1)
	}
}

// statement says what the holder thinks that it holds; rot goes unnoticed.
func (w *world) statement(p *simPeer, a Action) group.Statement {
	st := group.Statement{Holder: p.key, Group: a.Group, Slot: a.Slot}
	if p.slots[slotID{a.Group, a.Slot}] != nil {
		st.Held = packs(w.cfg.packs)
	}
	return st
}

func (w *world) audited(p *simPeer, up bool, a Action) audit.Outcome {
	if !up {
		return audit.Unreachable
	}
	if p.liar {
		return audit.Corrupt
	}
	held := p.slots[slotID{a.Group, a.Slot}]
	if held == nil || !held.Has(a.Challenge.Number) {
		w.tally.found++
		return audit.Absent
	}
	return audit.Proved
}

// checkReason fails the test when a slot is moved away from a holder that has
// not really been away for dead-after, or did not lie.
func (w *world) checkReason(a Action) {
	p := w.peers[a.Old]
	if p == nil || p.liar || a.Old.IsZero() {
		return
	}
	tick := w.tick()
	until := w.now
	switch {
	case !p.up:
	case w.now.Sub(p.upSince) <= 3*tick: // back, but not asked yet
		until = p.upSince
	default:
		until = p.downSince
	}
	if until.Sub(p.downSince) < w.deadline() {
		w.t.Fatalf("seed %d, %v: slot moved from a peer that was away for %v only (up %v)", w.cfg.seed, w.now, w.now.Sub(p.downSince), p.up)
	}
}

// finishMoves ends the repairs that were begun a tick ago.
func (w *world) finishMoves() {
	moving := w.moving
	w.moving = nil
	for _, a := range moving {
		p := w.peers[a.Peer]
		if p == nil || !p.up || !w.readable(a) {
			w.tally.failed++
			w.state.Failed(a, Ours, w.now)
			continue
		}
		w.finish(p, a)
	}
}

func (w *world) finish(p *simPeer, a Action) {
	id := slotID{a.Group, a.Slot}
	if p.slots[id] == nil {
		p.slots[id] = &group.Bitmap{}
	}
	p.slots[id].Union(a.Packs)
	if a.Kind == Refill {
		w.tally.refills++
		w.state.Refilled(a, a.Packs, w.now)
		return
	}
	w.tally.moves++
	for held := range p.slots {
		if held.group == a.Group && held != id {
			w.t.Fatalf("seed %d: a peer that has slot %d of a group was given %d", w.cfg.seed, held.slot, a.Slot)
		}
	}
	g := w.byID[a.Group]
	g.Slots[a.Slot] = Slot{Holder: a.Peer}
	owner := group.Group{Slots: make([]group.PeerKey, len(g.Slots)), Former: g.Former}
	for i, slot := range g.Slots {
		owner.Slots[i] = slot.Holder
	}
	owner.Forget(a.Peer)
	owner.Left(a.Slot, a.Old)
	g.Former = owner.Former
	w.state.Moved(a, a.Packs, w.now)
	w.state.SetGroup(g.Group, w.now)
}

// release has a peer delete what it has of a group, which must be in no slot of it.
func (w *world) release(p *simPeer, up bool, a Action) {
	if !up {
		w.state.Unreleased(a, true, w.now)
		return
	}
	g := w.byID[a.Group]
	if slices.ContainsFunc(g.Slots, func(s Slot) bool { return s.Holder == a.Peer }) {
		w.t.Fatalf("seed %d: a holder is released", w.cfg.seed)
	}
	for id := range p.slots {
		if id.group == a.Group {
			delete(p.slots, id)
			w.tally.released++
		}
	}
	g.Former = slices.DeleteFunc(g.Former, func(f group.Former) bool { return f.Holder == a.Peer })
	w.state.Released(a)
}

// leftovers fails the test if a peer that has been there for days has shards that
// are not wanted of it.
func (w *world) leftovers() {
	for _, k := range w.order {
		p := w.peers[k]
		if !p.up || w.now.Sub(p.upSince) < 2*day {
			continue
		}
		for id := range p.slots {
			if g := w.byID[id.group]; g.Slots[id.slot].Holder != k && w.state.Superseded(id.group, id.slot) {
				w.t.Errorf("seed %d: a peer that is not in slot %d of group %v still has it (former: %v)", w.cfg.seed, id.slot, id.group, g.Former)
			}
		}
	}
}

// readable reports whether k shards of each pack can really be had now.
func (w *world) readable(a Action) bool {
	g := w.byID[a.Group]
	ok := true
	each(a.Packs, func(n uint16) {
		there := 0
		for s, slot := range g.Slots {
			if p := w.peers[slot.Holder]; p != nil && p.up && !p.liar {
				if held := p.slots[slotID{g.ID, uint8(s)}]; held != nil && held.Has(n) {
					there++
				}
			}
		}
		ok = ok && there >= w.cfg.k
	})
	return ok
}

// A swarm lives through a year of churn, rot, lies and one catastrophe, and
// nothing that could be saved is lost, nothing is rebuilt without need.
func TestAYearOfChurn(t *testing.T) {
	if testing.Short() || raceEnabled {
		t.Skip("the smaller one runs")
	}
	live(t, simConfig{
		seed: 1, peers: 200, groups: 1000, k: 6, n: 14, packs: 4, days: 365,
		life: 200 * day, up: 20 * time.Hour, down: 4 * time.Hour, liars: 5, catastropheDay: 180,
	})
}

func TestMonthsOfChurn(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			live(t, simConfig{
				seed: seed, peers: 60, groups: 100, k: 6, n: 14, packs: 4, days: 120,
				life: 100 * day, up: 20 * time.Hour, down: 4 * time.Hour, liars: 3, catastropheDay: 60,
			})
		})
	}
}

func live(t *testing.T, c simConfig) {
	t.Helper()
	w := newWorld(t, c)
	start := time.Now()
	w.run()
	w.check()
	t.Logf("%+v in %v", w.tally, time.Since(start))
	w.judge()
}

// judge checks the sums at the end.
func (w *world) judge() {
	n := w.tally
	for _, g := range w.groups {
		for _, slot := range g.Slots {
			if p := w.peers[slot.Holder]; p != nil && p.liar {
				w.t.Fatal("a liar still has a slot")
			}
		}
	}
	liars := w.cfg.liars * w.cfg.groups * w.cfg.n / w.cfg.peers
	if most := n.slotsOfEnded + n.slotsOfAbsent + liars; n.moves > most {
		w.t.Errorf("%d slots moved, %d at most had to be", n.moves, most)
	}
	if n.refills > n.found+n.moves/10 {
		w.t.Errorf("%d refills of %d holes found", n.refills, n.found)
	}
	if n.found < n.rotted/4 {
		w.t.Errorf("of %d shards that rotted, audits found %d", n.rotted, n.found)
	}
	if n.released < n.slotsOfAbsent/10 {
		w.t.Errorf("%d slots of peers that were away for long, %d released", n.slotsOfAbsent, n.released)
	}
	if spare := w.cfg.n - w.cfg.k; n.leastUsually < w.cfg.k+spare*3/8 {
		w.t.Errorf("on usual days, a pack had %d of %d shards left", n.leastUsually, w.cfg.n)
	}
	w.leftovers()
	r := w.state.Report(w.now)
	if r.Lost > 0 || r.BelowTarget() > r.Packs/10 || r.Peers[peers.Alive] < len(w.order)/2 {
		w.t.Errorf("in the end: %+v", r)
	}
}

func BenchmarkDecideWithNothingToDo(b *testing.B) {
	s := New(Config{Leaves: -1})
	now := time.UnixMilli(1_800_000_000_000)
	for i := range 1000 {
		g := Group{ID: group.ID{byte(i), byte(i >> 8)}, Class: erasure.MaxClass, Coding: erasure.NewCoding(32, 55), Wanted: packs(256), Owned: true}
		for j := range 55 {
			g.Slots = append(g.Slots, Slot{Holder: key(1 + (i*7+j)%500), Held: packs(256)})
		}
		s.SetGroup(g, now)
	}
	rnd := rand.New(rand.NewPCG(1, 1))
	for b.Loop() {
		s.Decide(now, nil, rnd)
	}
}
