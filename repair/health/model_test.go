package health

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/audit"
)

// Whatever is reported in whatever order, the State stays consistent with
// itself and within its bounds.
func TestAnySequenceOfReports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &model{
			s:   New(Config{Self: key(1), Repairs: 3, Asks: 4, Proofs: 5}),
			now: time.UnixMilli(1_800_000_000_000),
			rnd: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1)),
		}
		for n := range 12 {
			m.candidates = append(m.candidates, place.Candidate{Key: key(n + 1), Free: 1 << 50, Availability: 1})
		}
		t.Repeat(map[string]func(*rapid.T){
			"set group":  m.setGroup,
			"drop group": func(t *rapid.T) { m.s.DropGroup(drawGroup(t)) },
			"decide":     m.decide,
			"end":        m.end,
			"seen":       func(t *rapid.T) { m.s.Seen(drawPeer(t), m.now) },
			"lied":       func(t *rapid.T) { m.s.Lied(drawPeer(t), m.now) },
			"stated":     m.stated,
			"restart":    m.restart,
			"":           m.check,
		})
	})
}

type model struct {
	s          *State
	now        time.Time
	rnd        *rand.Rand
	candidates []place.Candidate
	begun      []Action
}

func drawPeer(t *rapid.T) group.PeerKey { return key(rapid.IntRange(1, 12).Draw(t, "peer")) }
func drawGroup(t *rapid.T) group.ID     { return group.ID{byte(rapid.IntRange(1, 3).Draw(t, "group"))} }
func drawSlot(t *rapid.T) uint8         { return uint8(rapid.IntRange(0, 4).Draw(t, "slot")) }
func drawPacks(t *rapid.T) (b group.Bitmap) {
	b[0] = rapid.Byte().Draw(t, "packs")
	return b
}

func (m *model) setGroup(t *rapid.T) {
	g := Group{
		ID: drawGroup(t), Class: erasure.MaxClass, Coding: erasure.NewCoding(2, 5),
		Wanted: drawPacks(t), Local: drawPacks(t), Owned: rapid.Bool().Draw(t, "owned"),
	}
	for _, n := range rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7}).Draw(t, "holders")[:5] {
		s := Slot{Held: drawPacks(t), Leave: rapid.IntRange(0, 9).Draw(t, "leave") == 0}
		if n > 0 {
			s.Holder = key(n)
		}
		g.Slots = append(g.Slots, s)
	}
	for range rapid.IntRange(0, 3).Draw(t, "former") {
		f := group.Former{Holder: drawPeer(t), Slot: drawSlot(t)}
		if !slices.ContainsFunc(g.Former, func(o group.Former) bool { return o.Holder == f.Holder }) {
			g.Former = append(g.Former, f)
		}
	}
	m.s.SetGroup(g, m.now)
}

func (m *model) decide(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.Int64Range(0, int64(20*time.Hour)).Draw(t, "gap")))
	for _, a := range m.s.Decide(m.now, m.candidates, m.rnd) {
		switch a.Kind {
		case Ask, Prove:
			if a.Peer == m.s.cfg.Self || a.Peer.IsZero() {
				t.Fatalf("questions to nobody: %+v", a)
			}
		case Move, Refill:
			m.checkRepair(t, a)
		case Release:
			m.checkRelease(t, a)
		case Cancel:
			if !slices.ContainsFunc(m.begun, func(b Action) bool { return b.Kind == Move && b.task() == a.moveTask() }) {
				t.Fatalf("cancels what was not begun: %+v", a)
			}
			continue
		}
		if slices.ContainsFunc(m.begun, func(b Action) bool { return clash(a, b) || clash(b, a) }) {
			t.Fatalf("a peer is released and given a slot at once: %+v", a)
		}
		if slices.ContainsFunc(m.begun, func(b Action) bool { return b.task() == a.task() }) {
			t.Fatalf("begun twice: %+v", a)
		}
		m.begun = append(m.begun, a)
	}
}

// clash reports whether one action releases a peer and the other gives it a slot of
// the same group.
func clash(a, b Action) bool {
	return a.Kind == Release && b.Kind == Move && a.Peer == b.Peer && a.Group == b.Group
}

// moveTask is the task that a Cancel is about.
func (a Action) moveTask() task { return task{kind: Move, group: a.Group, slot: a.Slot} }

func (m *model) checkRepair(t *rapid.T, a Action) {
	g, ok := m.s.Group(a.Group)
	if !ok || a.Packs == (group.Bitmap{}) || !g.Wanted.Contains(a.Packs) {
		t.Fatalf("repair of what is not wanted: %+v", a)
	}
	if st := m.s.PeerState(a.Peer); st == peers.Dead || st == peers.Suspect {
		t.Fatalf("repair at a peer that is %v: %+v", st, a)
	}
	for i, slot := range g.Slots {
		if slot.Holder == a.Peer && (i != int(a.Slot) || a.Kind == Move) {
			t.Fatalf("a second slot for one holder: %+v", a)
		}
	}
	if a.Kind == Move && a.Old != g.Slots[a.Slot].Holder {
		t.Fatalf("moved from another than the holder: %+v", a)
	}
}

// checkRelease fails the test if a release takes away what may be needed.
func (m *model) checkRelease(t *rapid.T, a Action) {
	g, ok := m.s.Group(a.Group)
	if !ok || !g.Owned || !slices.Contains(g.Former, group.Former{Holder: a.Peer, Slot: a.Slot}) {
		t.Fatalf("release of who is no former holder: %+v", a)
	}
	if slices.ContainsFunc(g.Slots, func(s Slot) bool { return s.Holder == a.Peer }) {
		t.Fatalf("release of a holder: %+v", a)
	}
	slot := g.Slots[a.Slot]
	if g.Wanted != (group.Bitmap{}) && (m.s.PeerState(slot.Holder) != peers.Alive || slot.Held != g.Wanted) {
		t.Fatalf("release of what nobody else has: %+v", a)
	}
}

// end ends one action that is under way, in any of the ways that it can.
func (m *model) end(t *rapid.T) {
	if len(m.begun) == 0 {
		t.Skip("nothing is under way")
	}
	i := rapid.IntRange(0, len(m.begun)-1).Draw(t, "action")
	a := m.begun[i]
	m.begun = slices.Delete(m.begun, i, i+1)
	stored := a.Packs.Within(union(drawPacks(t), drawPacks(t)))
	failed := rapid.Bool().Draw(t, "failed")
	switch {
	case a.Kind == Ask && failed:
		m.s.Missed(a.Peer, m.now)
	case a.Kind == Ask:
		m.s.Stated(group.Statement{Holder: a.Peer, Group: a.Group, Slot: a.Slot, Held: drawPacks(t)}, m.now)
	case a.Kind == Prove:
		m.s.Audited(a, audit.Outcome(rapid.IntRange(0, 5).Draw(t, "outcome")), m.now)
	case a.Kind == Release && failed:
		m.s.Unreleased(a, rapid.Bool().Draw(t, "away"), m.now)
	case a.Kind == Release:
		m.s.Released(a)
	case failed:
		m.s.Failed(a, Blame(rapid.IntRange(int(Ours), int(Unwilling)).Draw(t, "blame")), m.now)
	case a.Kind == Refill:
		m.s.Refilled(a, stored, m.now)
	default:
		m.s.Moved(a, stored, m.now)
	}
}

func (m *model) stated(t *rapid.T) {
	p := drawPeer(t)
	m.begun = slices.DeleteFunc(m.begun, func(a Action) bool { return a.Kind == Ask && a.Peer == p })
	m.s.Stated(group.Statement{Holder: p, Group: drawGroup(t), Slot: drawSlot(t), Held: drawPacks(t)}, m.now)
}

// restart carries the memory over to a new State.
func (m *model) restart(t *rapid.T) {
	s := New(m.s.cfg)
	if err := s.Restore(m.s.Encode(m.now), m.now); err != nil {
		t.Fatal(err)
	}
	for _, id := range m.s.groupOrder {
		g, _ := m.s.Group(id)
		s.SetGroup(g, m.now)
	}
	m.s, m.begun = s, nil
}

func (m *model) check(t *rapid.T) {
	s := m.s
	if s.repairs > s.cfg.Repairs || s.asks > s.cfg.Asks || s.proofs > s.cfg.Proofs || s.freeing > releasesAtOnce {
		t.Fatalf("%d repairs, %d asks, %d proofs under way", s.repairs, s.asks, s.proofs)
	}
	if len(s.begun) != len(m.begun) || s.repairs+s.asks+s.proofs+s.freeing != len(m.begun) {
		t.Fatalf("%d actions are counted as under way, %d are", len(s.begun), len(m.begun))
	}
	if len(s.peerOrder) != len(s.peers) || len(s.groupOrder) != len(s.groups) {
		t.Fatal("the orders do not fit the maps")
	}
	former := map[group.PeerKey]int{}
	for _, g := range s.groups {
		for _, f := range g.former {
			former[f.Holder]++
		}
	}
	if len(former) != len(s.formers) {
		t.Fatalf("%d former holders are known, %d are", len(s.formers), len(former))
	}
	for k, p := range s.formers {
		if p.groups != former[k] {
			t.Fatalf("%v is a former holder of %d groups, not %d", k, former[k], p.groups)
		}
	}
	refs := map[slotRef]*peer{}
	for _, p := range s.peers {
		for _, r := range p.slots {
			if refs[r] != nil {
				t.Fatal("a slot has two holders")
			}
			refs[r] = p
		}
	}
	slots := 0
	for _, g := range s.groups {
		for i, slot := range g.Slots {
			if p := refs[slotRef{g, i}]; p != g.kept[i].holder || (p == nil) != slot.Holder.IsZero() || p != nil && p.key != slot.Holder {
				t.Fatal("a slot and its holder do not name each other")
			}
			if !slot.Holder.IsZero() {
				slots++
			}
		}
	}
	if slots != len(refs) {
		t.Fatalf("%d slots are linked, %d have holders", len(refs), slots)
	}
	r := s.Report(m.now)
	if r.Healthy+r.Injured+r.Lost != r.Packs || r.AtRisk > r.Healthy || r.Repairs != s.repairs {
		t.Fatalf("%+v", r)
	}
}
