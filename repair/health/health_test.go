package health

import (
	"encoding/binary"
	"errors"
	"maps"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/audit"
)

func key(n int) (k group.PeerKey) {
	binary.BigEndian.PutUint32(k[:], uint32(n))
	k[31] = 1
	return k
}

func packs(n int) (b group.Bitmap) {
	for i := range n {
		b.Add(uint16(i))
	}
	return b
}

// bench is a State with time, peers that are there or not, and spare
// candidates.
type bench struct {
	*testing.T
	*State
	now   time.Time
	away  map[group.PeerKey]bool
	spare []place.Candidate
	truth map[group.PeerKey]group.Bitmap // what a holder states, if not what is believed
	did   []Action
	rnd   *rand.Rand
}

var testGroup = group.ID{1}

// newBench returns a bench with one owned group of a coding, held by peers 1
// to n, with three wanted packs, and spare peers 101 ….
func newBench(t *testing.T, k, n, spare int, change func(*Config, *Group)) *bench {
	c := Config{Self: key(999), Leaves: -1}
	g := Group{ID: testGroup, Class: erasure.MaxClass, Coding: erasure.NewCoding(k, n), Wanted: packs(3), Owned: true}
	for i := range n {
		g.Slots = append(g.Slots, Slot{Holder: key(i + 1), Held: packs(3)})
	}
	if change != nil {
		change(&c, &g)
	}
	b := &bench{
		T: t, State: New(c), now: time.UnixMilli(1_800_000_000_000),
		away: map[group.PeerKey]bool{}, truth: map[group.PeerKey]group.Bitmap{}, rnd: rand.New(rand.NewPCG(1, 2)),
	}
	for i := range spare {
		b.spare = append(b.spare, place.Candidate{Key: key(101 + i), Free: 1 << 50, Availability: 1})
	}
	b.SetGroup(g, b.now)
	return b
}

// run lets time pass, answers questions, and returns the repairs that were
// begun meanwhile; they stay under way.
func (b *bench) run(d time.Duration) []Action {
	b.Helper()
	var repairs []Action
	for end := b.now.Add(d); b.now.Before(end); {
		b.now = b.now.Add(b.cfg.Tick())
		for again := true; again; {
			actions := b.Decide(b.now, b.spare, b.rnd)
			again = len(actions) > 0
			for _, a := range actions {
				if !b.answer(a) {
					repairs = append(repairs, a)
				}
			}
		}
	}
	return repairs
}

// answer does what an action asks for, if it is a question.
func (b *bench) answer(a Action) bool {
	b.did = append(b.did, a)
	switch {
	case a.Kind == Ask && !b.away[a.Peer]:
		b.Stated(b.statement(a), b.now)
	case a.Kind == Ask:
		b.Missed(a.Peer, b.now)
	case a.Kind == Prove && !b.away[a.Peer]:
		b.Audited(a, audit.Proved, b.now)
	case a.Kind == Prove:
		b.Audited(a, audit.Unreachable, b.now)
	default:
		return false
	}
	return true
}

func (b *bench) statement(a Action) group.Statement {
	held, ok := b.truth[a.Peer]
	if !ok {
		g, _ := b.Group(a.Group)
		held = g.Slots[a.Slot].Held
	}
	return group.Statement{Holder: a.Peer, Group: a.Group, Slot: a.Slot, Held: held}
}

func (b *bench) pack(want Health, live, reachable int, atRisk bool) {
	b.Helper()
	got, ok := b.Pack(testGroup, 0, b.now)
	w := PackHealth{Health: want, Live: live, Reachable: reachable, AtRisk: atRisk}
	if got.Proven, got.Away, got.OnlyHere = (time.Time{}), false, false; !ok || got != w {
		b.Errorf("pack 0 is %+v, want %+v", got, w)
	}
}

func (b *bench) none(as []Action) {
	b.Helper()
	if len(as) > 0 {
		b.Errorf("unexpected: %v", as)
	}
}

func (b *bench) one(as []Action, kind Kind, slot uint8) Action {
	b.Helper()
	if len(as) != 1 || as[0].Kind != kind || as[0].Slot != slot {
		b.Fatalf("got %v, want one %v of slot %d", as, kind, slot)
	}
	return as[0]
}

const day = 24 * time.Hour

func TestSilenceIsNotLoss(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.none(b.run(day))
	b.pack(Healthy, 7, 7, false)
	for n := 1; n <= 4; n++ {
		b.away[key(n)] = true
	}
	b.none(b.run(day / 2))
	b.pack(Healthy, 7, 3, true)
	if b.PeerState(key(1)) != peers.Suspect {
		t.Errorf("after half a day: %v", b.PeerState(key(1)))
	}
	b.away = map[group.PeerKey]bool{}
	b.none(b.run(day / 4))
	b.pack(Healthy, 7, 7, false)
}

// Who did not answer just now is silent at once, though nobody is judged for that: what
// too few others hold cannot be read now.
func TestSilentAtOnce(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.none(b.run(day))
	away := func() bool {
		p, _ := b.Pack(testGroup, 0, b.now)
		return p.Away
	}
	for n := 1; n <= 3; n++ {
		b.Answers(key(n), false)
	}
	b.pack(Healthy, 7, 4, true)
	if away() {
		t.Error("four of seven answer, and it is called away")
	}
	b.Answers(key(4), false)
	b.pack(Healthy, 7, 3, true)
	if r := b.Report(b.now); !away() || r.Away != r.Packs || b.PeerState(key(4)) != peers.Alive {
		t.Errorf("three of seven answer: away is %v, %+v, %v", away(), r, b.PeerState(key(4)))
	}
	b.Seen(key(1), b.now)
	if away() {
		t.Error("it is away after one came back")
	}
	b.none(b.run(day))
	b.pack(Healthy, 7, 7, false)
}

// What k holders have that are alive can be built, though one of them missed the last
// question; not without one that has been silent for long.
func TestOneMissedQuestionHoldsBackNoRepair(t *testing.T) {
	for _, c := range []struct {
		name    string
		silent  func(*bench)
		repairs int
	}{
		{"nobody is silent", func(*bench) {}, 1},
		{"one did not answer just now", func(b *bench) { b.Answers(key(1), false) }, 1},
		{"k did not", func(b *bench) {
			for n := 1; n <= 4; n++ {
				b.Answers(key(n), false)
			}
		}, 1},
		{"one is suspect", func(b *bench) {
			b.away[key(1)] = true
			b.none(b.run(day / 2))
		}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, 4, 5, 0, nil)
			b.none(b.run(day))
			c.silent(b)
			b.Stated(group.Statement{Holder: key(5), Group: testGroup, Slot: 4}, b.now)
			n := 0
			for _, a := range b.Decide(b.now, nil, b.rnd) {
				if a.Kind == Refill && a.Slot == 4 {
					n++
				}
			}
			if n != c.repairs {
				t.Errorf("%d repairs begin, want %d", n, c.repairs)
			}
		})
	}
}

func TestDeadHolderIsReplaced(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	b.away[key(3)] = true
	b.none(b.run(3*day - 2*time.Hour))
	a := b.one(b.run(6*time.Hour), Move, 2)
	if a.Old != key(3) || a.Packs != packs(3) || binary.BigEndian.Uint32(a.Peer[:]) < 101 || a.Spare != 2 {
		t.Errorf("%+v", a)
	}
	b.pack(Injured, 6, 6, false)
	b.Moved(a, packs(3), b.now)
	b.pack(Healthy, 7, 7, false)
	b.none(b.run(day))
	if st := b.PeerState(key(3)); st != peers.Dead {
		t.Errorf("the dead holder is called %v when it holds nothing any more", st)
	}
	b.Seen(key(3), b.now)
	b.run(time.Hour)
	if st := b.PeerState(key(3)); st == peers.Dead || len(b.peers) > 7 {
		t.Errorf("when it is back, it is called %v; %d peers are remembered", st, len(b.peers))
	}
}

func TestReturnCancelsTheMove(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	b.away[key(3)] = true
	a := b.one(b.run(3*day+4*time.Hour), Move, 2)
	b.away[key(3)] = false
	var cancels []Action
	for _, c := range b.run(4 * time.Hour) {
		if c.Kind == Cancel {
			cancels = append(cancels, c)
		}
	}
	if len(cancels) == 0 || cancels[0].Slot != 2 || cancels[0].Group != testGroup || cancels[0].Peer != a.Peer {
		t.Fatalf("no cancel: %v", cancels)
	}
	b.pack(Healthy, 7, 7, false)
	b.Failed(a, Ours, b.now)
	b.none(b.run(day))
}

func TestHoleIsRefilled(t *testing.T) {
	b := newBench(t, 4, 7, 0, func(_ *Config, g *Group) { g.Slots[5].Held.Remove(1) })
	a := b.one(b.run(6*time.Hour), Refill, 5)
	var want group.Bitmap
	want.Add(1)
	if a.Peer != key(6) || a.Packs != want {
		t.Errorf("%+v", a)
	}
	b.Refilled(a, want, b.now)
	b.none(b.run(day))

	b.truth[key(2)] = group.Bitmap{} // it lost its disk, and says so
	if got := b.one(b.run(day), Refill, 1); got.Packs != packs(3) {
		t.Errorf("%+v", got)
	}
}

func TestHoleOfASilentHolderWaits(t *testing.T) {
	b := newBench(t, 4, 7, 3, func(_ *Config, g *Group) { g.Slots[5].Held.Remove(1) })
	b.away[key(6)] = true
	b.none(b.run(2 * day))
	b.one(b.run(2*day), Move, 5)
}

// A holder that answers, and each time fails to take what its slot lacks, keeps the
// slot for some time only. What is wrong on our side is not held against it.
func TestFailingHolderIsRelieved(t *testing.T) {
	b := newBench(t, 4, 7, 1, func(_ *Config, g *Group) { g.Slots[5].Held.Remove(1) })
	for range 2 * maxUntaken {
		b.Failed(b.one(b.run(2*day), Refill, 5), Ours, b.now)
	}
	for range maxUntaken - 1 {
		b.Failed(b.one(b.run(2*day), Refill, 5), Theirs, b.now)
	}
	var some group.Bitmap
	some.Add(0)
	b.Refilled(b.one(b.run(2*day), Refill, 5), some, b.now) // it can, after all
	for range maxUntaken {
		b.Failed(b.one(b.run(2*day), Refill, 5), Theirs, b.now)
	}
	if m := b.one(b.run(2*day), Move, 5); m.Old != key(6) {
		t.Errorf("%+v", m)
	}
}

func TestFullHolderIsRelieved(t *testing.T) {
	b := newBench(t, 4, 7, 1, func(_ *Config, g *Group) { g.Slots[5].Held.Remove(1) })
	a := b.one(b.run(6*time.Hour), Refill, 5)
	b.Failed(a, Unwilling, b.now)
	m := b.one(b.run(time.Hour), Move, 5)
	if m.Packs != packs(3) || m.Old != key(6) {
		t.Errorf("%+v", m)
	}
	var part group.Bitmap
	part.Add(0)
	b.Moved(m, part, b.now) // less than the old one has: refused
	if g, _ := b.Group(testGroup); g.Slots[5].Holder != key(6) {
		t.Fatal("the slot went to a holder that has less")
	}
	m = b.one(b.run(6*time.Hour), Move, 5)
	b.Moved(m, packs(3), b.now)
	if g, _ := b.Group(testGroup); g.Slots[5].Holder != key(101) || g.Slots[5].Leave {
		t.Errorf("%+v", g.Slots[5])
	}
}

func TestLiarsLoseTheirSlots(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	for i := range MaxLies {
		if b.PeerState(key(2)) != peers.Alive {
			t.Fatalf("dead after %d lies", i)
		}
		b.Audited(Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Number: 2}}, audit.Corrupt, b.now)
	}
	a := b.one(b.run(time.Hour), Move, 1)
	b.Moved(a, packs(3), b.now)
	if b.PeerState(key(2)) != peers.Dead {
		t.Error("a liar is forgotten with its slot")
	}
	b.spare = append(b.spare, place.Candidate{Key: key(2), Free: 1 << 60, Availability: 1})
	b.away[key(5)] = true
	if a := b.one(b.run(4*day), Move, 4); a.Peer == key(2) {
		t.Error("a liar gets a slot")
	}
	b.now = b.now.Add(360 * day)
	b.run(day)
	if b.PeerState(key(2)) == peers.Dead {
		t.Error("lies are never forgiven")
	}
}

func TestWhatAnAuditDoesNotFindIsRefilled(t *testing.T) {
	for _, o := range []audit.Outcome{audit.Absent, audit.Corrupt} {
		b := newBench(t, 4, 7, 3, nil)
		b.run(day)
		prove := Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Number: 2}}
		b.Audited(prove, o, b.now)
		a := b.one(b.run(time.Hour), Refill, 1)
		var want group.Bitmap
		want.Add(2)
		if a.Packs != want {
			t.Errorf("%v: %+v", o, a)
		}
		b.run(day) // its statement claims the shard still; that does not count
		if p, _ := b.Pack(testGroup, 2, b.now); p.Live != 6 {
			t.Errorf("%v: believed again: %+v", o, p)
		}
		b.Refilled(a, want, b.now)
		if p, _ := b.Pack(testGroup, 2, b.now); p.Live != 7 {
			t.Errorf("%v: not believed after it was brought: %+v", o, p)
		}
	}
}

func TestWhatIsOwedTooLong(t *testing.T) {
	evade := func(b *bench, number uint16, o audit.Outcome) bool {
		return b.Audited(Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Number: number}}, o, b.now)
	}
	for name, c := range map[string]struct {
		nights func(b *bench) (caught bool)
		caught bool
	}{
		"one night": {func(b *bench) (caught bool) {
			for range 100 {
				caught = evade(b, 2, audit.Late) || caught
			}
			return caught
		}, false},
		"some nights": {func(b *bench) (caught bool) {
			for range 10 {
				caught = evade(b, 2, audit.Refused) || caught
				b.run(12 * time.Hour)
				caught = evade(b, 2, audit.Proved) || caught
				b.run(12 * time.Hour)
			}
			return caught
		}, false},
		"too seldom": {func(b *bench) (caught bool) {
			for range maxEvasions - 1 {
				caught = evade(b, 2, audit.Late) || caught
				b.run(day)
			}
			return caught
		}, false},
		"too long, with proofs of others": {func(b *bench) (caught bool) {
			for range 2 * maxEvasions {
				caught = evade(b, 2, audit.Refused) || caught
				evade(b, 1, audit.Proved)
				b.run(12 * time.Hour)
			}
			return caught
		}, true},
	} {
		b := newBench(t, 4, 7, 3, nil)
		b.run(day)
		caught := c.nights(b)
		b.run(time.Hour)
		_, moved := b.begun[Action{Kind: Move, Group: testGroup, Slot: 1}.task()]
		if caught != c.caught || moved != c.caught || b.PeerState(key(2)) != peers.Alive {
			t.Errorf("%s: caught: %v; it is %v", name, caught, b.PeerState(key(2)))
		}
		missing := uint8(0)
		if c.caught {
			missing = 1
		}
		if p, _ := b.Pack(testGroup, 2, b.now); p.Live != 7-int(missing) {
			t.Errorf("%s: %d shards of what it owes are there", name, p.Live)
		}
		if p, _ := b.Pack(testGroup, 1, b.now); p.Live != 7 {
			t.Errorf("%s: what it proves does not count", name)
		}
	}
}

// A device that slept finds its peers where it left them.
func TestOurOwnSleepKillsNobody(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	b.now = b.now.Add(30 * day)
	b.none(b.run(day))
	b.pack(Healthy, 7, 7, false)

	for n := 1; n <= 7; n++ { // our line is cut, but we are awake
		b.away[key(n)] = true
	}
	b.none(b.run(30 * day))
	if b.PeerState(key(1)) != peers.Suspect {
		t.Errorf("with nobody answering: %v", b.PeerState(key(1)))
	}
}

func TestMuchParityCanWait(t *testing.T) {
	b := newBench(t, 32, 55, 20, nil)
	b.run(day)
	b.away[key(1)], b.away[key(2)] = true, true
	b.none(b.run(4 * day))
	b.pack(Healthy, 53, 53, false)
	b.away[key(3)] = true
	if as := b.run(4 * day); len(as) != 3 {
		t.Errorf("three dead of a lazy three: %v", as)
	}

	b = newBench(t, 32, 55, 20, nil)
	b.run(day)
	b.away[key(1)] = true
	b.none(b.run(20 * day))
	b.one(b.run(15*day), Move, 0) // in the end one alone is repaired too

	b = newBench(t, 32, 55, 20, func(_ *Config, g *Group) { g.Local = g.Wanted })
	b.run(day)
	b.away[key(1)] = true
	b.one(b.run(4*day), Move, 0) // with a copy at hand, at once
}

func TestLostUnlessAtHand(t *testing.T) {
	kill := func(b *bench) []Action {
		b.run(day)
		for n := 1; n <= 4; n++ {
			b.away[key(n)] = true
		}
		return b.run(4 * day)
	}
	b := newBench(t, 4, 7, 9, nil)
	b.none(kill(b))
	b.pack(Lost, 3, 3, false)
	if r := b.Report(b.now); r.Lost != 3 || r.BelowTarget() != 3 || r.Peers[peers.Dead] != 4 || r.Missing != 12 {
		t.Errorf("%+v", r)
	}
	b.away[key(1)] = false // one comes back, and all is well again
	if as := b.run(day); len(as) != 3 {
		t.Errorf("repairs after a return: %v", as)
	}
	b.pack(Injured, 4, 4, false)

	b = newBench(t, 4, 7, 9, func(_ *Config, g *Group) { g.Local = packs(2) })
	for _, a := range kill(b) {
		if a.Kind != Move || a.Packs != packs(2) {
			t.Errorf("%+v", a)
		}
	}
	b.pack(Injured, 3, 3, false)
	if p, _ := b.Pack(testGroup, 2, b.now); p.Health != Lost {
		t.Errorf("pack 2: %+v", p)
	}
}

// A pack of which nothing is needed is missed by nobody when it is lost, until
// something of it is needed.
func TestIdlePacksAreNotMissed(t *testing.T) {
	b := newBench(t, 4, 7, 3, func(_ *Config, g *Group) {
		g.Idle = packs(2)
		for i := range g.Slots[3:] {
			g.Slots[3+i].Held = group.Bitmap{}
		}
	})
	lost := b.LostPacks(b.now)[testGroup]
	if r := b.Report(b.now); r.Packs != 1 || r.Lost != 1 || r.Missing != 4 || lost != packs(3).Without(packs(2)) {
		t.Errorf("%+v, %d packs are lost", r, lost.Count())
	}
	g, _ := b.Group(testGroup)
	g.Idle = group.Bitmap{}
	b.SetGroup(g, b.now)
	if lost := b.LostPacks(b.now)[testGroup]; lost != packs(3) || b.Report(b.now).Lost != 3 {
		t.Errorf("%d packs are lost when all are needed", lost.Count())
	}
}

// What holders have too few shards of, and this device all, is not lost, but only here;
// until repair has brought some.
func TestPacksThatAreOnlyHere(t *testing.T) {
	b := newBench(t, 4, 7, 3, func(_ *Config, g *Group) {
		g.Local = packs(2)
		for i := range g.Slots[3:] {
			g.Slots[3+i].Held = group.Bitmap{}
		}
	})
	for n, want := range map[uint16]PackHealth{0: {Health: Injured, OnlyHere: true}, 2: {Health: Lost}} {
		if p, _ := b.Pack(testGroup, n, b.now); p.Health != want.Health || p.OnlyHere != want.OnlyHere || p.Live != 3 {
			t.Errorf("pack %d: %+v", n, p)
		}
	}
	here, lost := b.OnlyHere(b.now)[testGroup], b.LostPacks(b.now)[testGroup]
	if r := b.Report(b.now); r.OnlyHere != 2 || r.Lost != 1 || here != packs(2) || lost != packs(3).Without(packs(2)) {
		t.Errorf("%+v; %d packs are only here, %d lost", r, here.Count(), lost.Count())
	}
	g, _ := b.Group(testGroup)
	g.Idle = packs(1)
	b.SetGroup(g, b.now)
	if r := b.Report(b.now); r.OnlyHere != 1 {
		t.Errorf("of which something is needed: %+v", r)
	}
	for _, a := range b.run(time.Hour) {
		b.Refilled(a, a.Packs, b.now)
	}
	if p, _ := b.Pack(testGroup, 1, b.now); p.OnlyHere || p.Live < 4 {
		t.Errorf("when repair has brought some: %+v", p)
	}
}

// Of peers that hold nothing and lied, as anybody can come under new names to do, so many
// are remembered, those that did so more than once and last before others; of holders all.
func TestLiarsAreBounded(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.Lied(key(1), b.now) // a holder
	twice := group.PeerKey{9, 9}
	b.Lied(twice, b.now)
	b.Lied(twice, b.now)
	liar := func(i int) group.PeerKey { return group.PeerKey{7, byte(i), byte(i >> 8), 7} }
	for i := range maxLiars + 100 {
		b.now = b.now.Add(time.Second)
		b.Lied(liar(i), b.now)
	}
	if n := len(b.peers); n > maxLiars+7 {
		t.Errorf("%d peers are remembered", n)
	}
	for name, lies := range map[string]struct {
		of   group.PeerKey
		want int
	}{"a holder": {key(1), 1}, "one that lied twice": {twice, 2}, "the first": {liar(0), 0}, "the last": {liar(maxLiars + 99), 1}} {
		got := 0
		if p := b.peers[lies.of]; p != nil {
			got = len(p.lies)
		}
		if got != lies.want {
			t.Errorf("of %s %d lies are remembered, want %d", name, got, lies.want)
		}
	}
	if len(b.peerOrder) != len(b.peers) {
		t.Errorf("%d keys of %d peers", len(b.peerOrder), len(b.peers))
	}
}

func TestNearestHolderRepairsForAnAbsentOwner(t *testing.T) {
	for self := 1; self <= 7; self++ {
		b := newBench(t, 4, 7, 3, func(c *Config, g *Group) { c.Self, g.Owned = key(self), false })
		b.run(day)
		dead := self%7 + 1
		b.away[key(dead)] = true
		b.none(b.run(3*day + 20*time.Hour)) // the owner's time
		as := b.run(day)
		nearest := key(1) // by XOR with an id that begins with 1, among those alive
		for n := 1; n <= 7; n++ {
			if n != dead && nearer(key(n), nearest, testGroup) || nearest == key(dead) {
				nearest = key(n)
			}
		}
		if (len(as) == 1) != (nearest == key(self)) {
			t.Errorf("self %d, nearest %v: %v", self, nearest, as)
		}
	}
}

func TestBoundsOfRepair(t *testing.T) {
	b := newBench(t, 2, 8, 20, func(c *Config, _ *Group) { c.Repairs = 2 })
	b.run(day)
	for n := 1; n <= 5; n++ {
		b.away[key(n)] = true
	}
	as := b.run(4 * day)
	if len(as) != 2 || as[0].Peer == as[1].Peer {
		t.Fatalf("%v", as)
	}
	b.Moved(as[0], packs(3), b.now)
	if more := b.run(time.Hour); len(more) != 1 || b.Report(b.now).Repairs != 2 {
		t.Errorf("after one has ended: %v", more)
	}
	b.Pause(true)
	b.Moved(as[1], packs(3), b.now)
	b.none(b.run(time.Hour))
	b.Pause(false)
	if more := b.run(time.Hour); len(more) != 1 {
		t.Errorf("after the pause: %v", more)
	}
}

func TestPaceDoesNotHoldBackTheUrgent(t *testing.T) {
	begun := func(dead int) int {
		b := newBench(t, 2, 40, 60, func(c *Config, _ *Group) { c.Pace, c.Repairs = 36, 100 })
		b.run(day)
		for n := 1; n <= dead; n++ {
			b.away[key(n)] = true
		}
		return len(b.run(3*day + 2*time.Hour))
	}
	if n := begun(10); n == 0 || n > 4 {
		t.Errorf("%d repairs at once of what can wait", n)
	}
	if n := begun(30); n < 25 {
		t.Errorf("%d repairs at once of what is urgent", n)
	}
}

func TestFailuresAreRetriedLessAndLessOften(t *testing.T) {
	b := newBench(t, 4, 7, 3, func(_ *Config, g *Group) { g.Slots[5].Held.Remove(1) })
	var begun []time.Time
	for range 20 * 72 / 3 {
		for _, a := range b.run(time.Hour) {
			begun = append(begun, b.now)
			b.Failed(a, Ours, b.now)
		}
	}
	if len(begun) < 10 || len(begun) > 40 {
		t.Fatalf("%d attempts in 20 days", len(begun))
	}
	if early, late := begun[1].Sub(begun[0]), begun[len(begun)-1].Sub(begun[len(begun)-2]); early > 3*time.Hour || late < 20*time.Hour {
		t.Errorf("first after %v, last after %v", early, late)
	}
}

func TestAuditsAddUp(t *testing.T) {
	b := newBench(t, 4, 7, 0, func(c *Config, _ *Group) { c.Leaves = 0 })
	b.run(day)
	b.did = nil
	b.run(day)
	leaves := map[group.PeerKey]int{}
	for _, a := range b.did {
		if a.Kind == Prove {
			leaves[a.Peer] += a.Challenge.Count
		}
	}
	for n := 1; n <= 7; n++ {
		if got := leaves[key(n)]; got < audit.PerDay || got > audit.PerDay*11/10 {
			t.Errorf("peer %d: %d leaves a day", n, got)
		}
	}
}

// A holder of one slot is asked 36 times in a dead-after, and no more holders at once than
// is allowed.
func TestQuestionsAreBounded(t *testing.T) {
	b := newBench(t, 4, 7, 0, func(c *Config, _ *Group) { c.Asks = 3 })
	b.run(day)
	b.did = nil
	b.run(b.cfg.DeadAfter)
	asked := map[group.PeerKey]int{}
	for _, a := range b.did {
		if a.Kind == Ask {
			asked[a.Peer]++
		}
	}
	for n := 1; n <= 7; n++ {
		if got := asked[key(n)]; got < 35 || got > 37 {
			t.Errorf("peer %d was asked %d times", n, got)
		}
	}
	for range 3 { // nobody answers
		b.now = b.now.Add(day)
		b.Decide(b.now, nil, b.rnd)
		if b.asks > 3 {
			t.Fatalf("%d are asked at once", b.asks)
		}
	}
}

// However short the time scale, a peer is audited once a second at most.
func TestAuditsAreBounded(t *testing.T) {
	b := newBench(t, 4, 7, 0, func(c *Config, _ *Group) { c.Leaves, c.DeadAfter = 0, 30*time.Second })
	b.run(time.Minute)
	b.did = nil
	b.run(time.Minute)
	audits := map[group.PeerKey]int{}
	for _, a := range b.did {
		if a.Kind == Prove {
			audits[a.Peer]++
		}
	}
	for n := 1; n <= 7; n++ {
		if got := audits[key(n)]; got < 50 || got > 61 {
			t.Errorf("peer %d: %d audits a minute", n, got)
		}
	}
}

// While nobody is there to take the slot of a dead holder, it is looked again soon,
// however long that lasts.
func TestSlotIsMovedSoonAfterSomebodyComes(t *testing.T) {
	b := newBench(t, 4, 7, 0, nil)
	b.run(day)
	b.away[key(3)] = true
	b.none(b.run(20 * day))
	b.spare = append(b.spare, place.Candidate{Key: key(101), Free: 1 << 50, Availability: 1})
	b.one(b.run(2*time.Hour), Move, 2)
}

func TestSetGroupKeepsWhatWasFound(t *testing.T) {
	b := newBench(t, 4, 7, 0, nil)
	b.truth[key(1)] = packs(1) // it lost packs 1 and 2
	b.Failed(b.one(b.run(day), Refill, 0), Ours, b.now)
	g, _ := b.Group(testGroup)
	if g.Slots[0].Held != packs(1) {
		t.Fatalf("%v", g.Slots[0].Held)
	}
	g.Wanted = packs(4)
	for i := range g.Slots {
		g.Slots[i].Held = packs(4) // the owner's table says so
	}
	g.Slots[6] = Slot{Holder: key(50), Held: packs(4)}
	b.SetGroup(g, b.now)
	want := packs(1)
	want.Add(3)
	g, _ = b.Group(testGroup)
	if g.Slots[0].Held != want || g.Slots[6].Held != packs(4) {
		t.Errorf("%v, %v", g.Slots[0].Held, g.Slots[6].Held)
	}
	if b.PeerState(key(7)) != peers.Unknown {
		t.Error("a peer without a slot is remembered")
	}
	b.DropGroup(testGroup)
	b.DropGroup(testGroup)
	if r := b.Report(b.now); !reflect.DeepEqual(r, Report{Peers: map[peers.State]int{}}) || len(b.State.peers) != 0 {
		t.Errorf("after the last group: %+v", r)
	}
	b.none(b.run(day))
}

// Reports that come late, twice, or about what is gone do no harm.
func TestStrayReports(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	a := Action{Kind: Move, Peer: key(101), Group: testGroup, Slot: 3, Old: key(77), Packs: packs(3)}
	for range 2 {
		b.Moved(a, packs(3), b.now)
		b.Failed(a, Unwilling, b.now)
		b.Refilled(Action{Kind: Refill, Peer: key(77), Group: testGroup, Slot: 3}, packs(3), b.now)
		b.Audited(Action{Kind: Prove, Peer: key(77), Group: testGroup, Slot: 200}, audit.Corrupt, b.now)
		b.Stated(group.Statement{Holder: key(77), Group: testGroup, Slot: 3}, b.now)
		b.Stated(group.Statement{Holder: key(1), Group: testGroup, Slot: 120}, b.now)
		b.Stated(group.Statement{Holder: key(1), Group: group.ID{9}}, b.now)
		b.Missed(key(77), b.now)
		b.Lied(group.PeerKey{}, b.now)
		b.Lied(b.cfg.Self, b.now)
	}
	g, _ := b.Group(testGroup)
	if i := slices.IndexFunc(g.Slots, func(s Slot) bool { return s.Held != packs(3) || s.Holder == key(101) }); i >= 0 {
		t.Errorf("slot %d changed: %+v", i, g.Slots[i])
	}
	if r := b.Report(b.now); r.Repairs != 0 || r.Healthy != 3 {
		t.Errorf("%+v", r)
	}
}

func TestMemoryOutlastsARestart(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	b.away[key(3)] = true
	b.Lied(key(4), b.now)
	b.run(2 * day)
	saved := b.Encode(b.now)

	again := newBench(t, 4, 7, 3, nil)
	again.State = New(Config{Self: key(999), Leaves: -1})
	again.now = b.now
	if err := again.Restore(saved, again.now); err != nil {
		t.Fatal(err)
	}
	g, _ := b.Group(testGroup)
	again.SetGroup(g, again.now)
	again.away[key(3)] = true
	again.none(again.run(20 * time.Hour))
	again.one(again.run(8*time.Hour), Move, 2) // not three days more
	again.Lied(key(4), again.now)
	again.Lied(key(4), again.now)
	if again.PeerState(key(4)) != peers.Dead {
		t.Error("a lie was forgotten")
	}
	for name, bad := range map[string][]byte{
		"nonsense": []byte("x"),
		"version":  record.Encode(memory{Version: 9}),
		"no peer":  record.Encode(memory{Version: memoryVersion, Peers: []remembered{{}}}),
		"past":     record.Encode(memory{Version: memoryVersion, Peers: []remembered{{Key: key(1), Silent: -1}}}),
		"twice":    record.Encode(memory{Version: memoryVersion, Peers: []remembered{{Key: key(1)}, {Key: key(1)}}}),
	} {
		if err := New(Config{}).Restore(bad, b.now); !errors.Is(err, ErrInvalid) && !errors.Is(err, record.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRestore(f *testing.F) {
	s := New(Config{})
	now := time.UnixMilli(1_800_000_000_000)
	s.Lied(key(1), now)
	f.Add(s.Encode(now))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := New(Config{})
		if s.Restore(b, now) != nil {
			return
		}
		s.Decide(now.Add(time.Hour), nil, rand.New(rand.NewPCG(1, 1)))
		if err := New(Config{}).Restore(s.Encode(now), now); err != nil {
			t.Fatal(err)
		}
	})
}

// On a device that has just been recovered nobody was asked yet: nothing counts
// as missing, and nothing is rebuilt, before a holder has said that it is.
func TestWhatWasNotAskedIsNotMissing(t *testing.T) {
	b := newBench(t, 4, 7, 2, func(_ *Config, g *Group) {
		g.Unknown = packs(3)
		for i := range g.Slots {
			g.Slots[i].Held = group.Bitmap{}
		}
	})
	for i := range 7 {
		b.truth[key(i+1)] = packs(3)
	}
	b.truth[key(3)] = packs(1)
	if r := b.Report(b.now); r.BelowTarget() != 0 || r.AtRisk != 0 || r.Missing != 0 || r.Unasked != 3 || r.Holders != 7 || r.Asked != 0 || !r.AsOf.IsZero() {
		t.Errorf("before anybody was asked: %+v", r)
	}
	repairs := b.run(b.cfg.Tick()) // at once, all of them
	r := b.Report(b.now)
	if r.Unasked != 0 || r.Asked != 7 || r.Healthy != 1 || r.Injured != 2 || r.Missing != 2 || !r.AsOf.Equal(b.now) {
		t.Errorf("after all were asked: %+v", r)
	}
	repairs = append(repairs, b.run(b.cfg.Tick())...)
	if len(repairs) != 1 || repairs[0].Kind != Refill || repairs[0].Peer != key(3) || repairs[0].Packs != packs(3).Without(packs(1)) {
		t.Errorf("repairs: %v", repairs)
	}
}

// What the account says of holders is presumed after a time in which each would have been
// asked, as on a disk that was put back from a backup, and they are asked at once.
func TestWhatWasSaidLongAgoIsPresumed(t *testing.T) {
	b := newBench(t, 4, 7, 2, nil)
	b.none(b.run(time.Hour))
	saved := b.Encode(b.now)
	const forgotten = time.Second // and when that was, is not known
	for gone, unasked := range map[time.Duration]int{23 * time.Hour: 0, 25 * time.Hour: 6, -25 * time.Hour: 6, forgotten: 6} {
		again := newBench(t, 4, 7, 2, nil)
		again.State, again.now = New(Config{Self: key(999), Leaves: -1}), b.now.Add(gone)
		if gone == forgotten {
			again.Doubt()
		} else if err := again.Restore(saved, again.now); err != nil {
			t.Fatal(err)
		}
		g, _ := b.Group(testGroup)
		again.SetGroup(g, again.now)
		g.ID = group.ID{2}
		again.SetGroup(g, again.now)
		for i := range 4 { // of each pack but the first, three shards are left
			again.truth[key(i+1)] = packs(1)
		}
		if r := again.Report(again.now); r.Unasked != unasked || r.Healthy != 6 || r.Missing != 0 {
			t.Errorf("%v later, before anybody is asked: %+v", gone, r)
		}
		again.run(again.cfg.Tick())
		if r := again.Report(again.now); r.Unasked != 0 || unasked > 0 && r.Lost != 4 {
			t.Errorf("%v later, after a look: %+v", gone, r)
		}
		g.ID = group.ID{3} // founded since
		again.SetGroup(g, again.now)
		if r := again.Report(again.now); r.Unasked != 0 {
			t.Errorf("%v later, of a group that is new: %+v", gone, r)
		}
	}
}

// All holders are asked at once when what they have is to be presumed, and what they do not
// have any more is known then.
func TestPresume(t *testing.T) {
	b := newBench(t, 4, 7, 2, nil)
	b.none(b.run(time.Hour))
	for i := range 4 { // of each pack but the first, three shards are left
		b.truth[key(i+1)] = packs(1)
	}
	b.Presume()
	if r := b.Report(b.now); r.Unasked != 3 || r.Healthy != 3 || r.Missing != 0 {
		t.Errorf("before anybody is asked: %+v", r)
	}
	b.run(b.cfg.Tick())
	if r := b.Report(b.now); r.Unasked != 0 || r.Lost != 2 {
		t.Errorf("after a look: %+v", r)
	}
}

// A holder that was there and is gone, and what it has is only presumed, is not asked again
// as soon as it has not answered.
func TestPresumedOfWhoFailsAtOnce(t *testing.T) {
	b := newBench(t, 4, 7, 2, nil)
	b.none(b.run(time.Hour))
	b.away[key(1)] = true
	b.Presume()
	asked := func() (n int) {
		for range 5 {
			for _, a := range b.Decide(b.now, b.spare, b.rnd) {
				if a.Kind == Ask && a.Peer == key(1) {
					n++
				}
				b.answer(a)
			}
		}
		return n
	}
	if n := asked(); n != 1 {
		t.Errorf("asked %d times at one moment", n)
	}
	b.now = b.now.Add(minAskInterval)
	if n := asked(); n != 1 {
		t.Errorf("asked %d times a moment later", n)
	}
	b.away[key(1)] = false
	b.now = b.now.Add(4 * minAskInterval)
	asked()
	if r := b.Report(b.now); r.Unasked != 0 {
		t.Errorf("when it is back: %+v", r)
	}
}

// A group of which questions to a holder bring nothing keeps neither the others that it has
// from being asked about for the first time, nor those that were.
func TestPresumedBehindOneThatFails(t *testing.T) {
	b := newBench(t, 4, 7, 2, nil)
	g, _ := b.Group(testGroup)
	for i := range 4 {
		g.ID = group.ID{2, byte(i)}
		b.SetGroup(g, b.now)
	}
	b.none(b.run(6 * time.Hour))
	b.Presume()
	asked := map[group.ID]int{}
	fails := func(limit time.Duration) {
		for end := b.now.Add(limit); b.now.Before(end); b.now = b.now.Add(minAskInterval) {
			for _, a := range b.Decide(b.now, b.spare, b.rnd) {
				if a.Kind != Ask || a.Peer != key(1) {
					b.answer(a)
					continue
				}
				asked[a.Group]++
				if a.Group == testGroup {
					b.Missed(a.Peer, b.now)
					b.Seen(a.Peer, b.now) // it is there
				} else {
					b.answer(a)
				}
			}
		}
	}
	fails(time.Minute)
	if n := asked[testGroup]; n < 3 || n > 8 {
		t.Errorf("about the group that fails it was asked %d times in a minute", n)
	}
	if r := b.Report(b.now); r.Unasked != 3 {
		t.Errorf("others wait for it: %+v", r)
	}
	before := maps.Clone(asked)
	fails(24 * time.Hour)
	for id, n := range asked {
		if id != testGroup && n < before[id]+2 {
			t.Errorf("about another group it was asked %d times in a day", n-before[id])
		}
	}
}

// A holder that was full, and did not take what its slot lacks, keeps the slot while not
// all that it has can be built for another, and gets the rest when it has room.
func TestFullHolderOfWhatCannotBeMoved(t *testing.T) {
	b := newBench(t, 4, 7, 2, func(_ *Config, g *Group) {
		for i := range g.Slots[3:] {
			g.Slots[3+i].Held = packs(2) // pack 2 is lost
		}
		g.Slots[0].Held = packs(3).Without(packs(1)) // and this one lacks pack 0
	})
	a := b.one(b.run(b.cfg.Tick()), Refill, 0)
	b.Failed(a, Unwilling, b.now)
	b.none(b.run(time.Hour))
	if g, _ := b.Group(testGroup); !g.Slots[0].Leave {
		t.Fatal("it keeps the slot while it is full")
	}
	b.spare = append(b.spare, place.Candidate{Key: key(1), Free: 1 << 50, Availability: 1})
	b.one(b.run(3*time.Hour), Refill, 0)
}

// Who is never heard of is not presumed to hold anything for ever.
func TestPresumingEnds(t *testing.T) {
	b := newBench(t, 2, 4, 2, func(_ *Config, g *Group) {
		g.Unknown = packs(3)
		for i := range g.Slots {
			g.Slots[i].Held = group.Bitmap{}
		}
	})
	for i := range 3 {
		b.truth[key(i+1)] = packs(3)
	}
	b.away[key(4)] = true
	b.run(b.cfg.suspectAfter() * 2)
	if r := b.Report(b.now); r.Unasked != 3 || r.Missing != 0 {
		t.Errorf("while one is silent: %+v", r)
	}
	b.run(b.cfg.DeadAfter)
	if r := b.Report(b.now); r.Unasked != 0 || r.Missing != 3 {
		t.Errorf("when it is dead: %+v", r)
	}
}

// A pack is proven since k of its holders have passed an audit.
func TestProven(t *testing.T) {
	b := newBench(t, 2, 4, 0, func(c *Config, _ *Group) { c.Leaves = 0 })
	begun := b.now
	b.away[key(1)], b.away[key(2)], b.away[key(3)] = true, true, true
	b.run(b.cfg.DeadAfter / 4)
	if p, _ := b.Pack(testGroup, 0, b.now); !p.Proven.IsZero() {
		t.Errorf("one holder has passed audits, and it is called proven since %v", p.Proven)
	}
	b.away[key(2)] = false
	b.run(b.cfg.DeadAfter / 2)
	b.away[key(4)] = true
	stopped := b.now
	b.run(b.cfg.DeadAfter / 8)
	if p, _ := b.Pack(testGroup, 0, b.now); !p.Proven.After(begun) || p.Proven.After(stopped) {
		t.Errorf("proven since %v, want when two were there last, before %v", p.Proven, stopped)
	}
}

// Who gave no answer a moment before it was heard, or after, was asked in vain, in whatever
// order that is told; who was heard long before or after was away.
func TestSilenceIsInVainOnlyIfHeardBesideIt(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	silent := Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Number: 2}}
	want := 0
	for _, c := range []struct {
		before, after time.Duration // when it was heard; 0 if not
		vain          int
	}{{0, time.Hour, 0}, {time.Minute, time.Hour, 1}, {0, time.Minute, 1}, {0, -time.Minute, 1}, {0, -time.Hour, 0}} {
		b.now = b.now.Add(day)
		if c.before > 0 {
			b.Seen(key(2), b.now.Add(-c.before))
		}
		b.Audited(silent, audit.Silent, b.now)
		b.Seen(key(2), b.now.Add(c.after))
		b.Seen(key(2), b.now.Add(2*time.Hour))
		want += c.vain
		if o := b.State.peers[key(2)].owed; len(o) != 1 || o[0].vain != want {
			t.Errorf("heard %v before and %v after: %+v", c.before, c.after, o)
		}
	}
}

// Who gave no answer when it was asked for a shard is asked for it as soon as it is heard.
func TestOwedIsAskedForAtOnce(t *testing.T) {
	b := newBench(t, 4, 7, 3, func(c *Config, _ *Group) { c.Leaves = 1 }) // an audit a month
	b.run(day)
	b.Audited(Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Number: 2}}, audit.Silent, b.now.Add(time.Hour))
	for want := range 2 {
		if b.now = b.now.Add(2 * time.Hour); want > 0 {
			b.Seen(key(2), b.now)
		}
		asked := 0
		for range 2 {
			for _, a := range b.Decide(b.now, b.spare, b.rnd) {
				if a.Kind == Prove && a.Peer == key(2) && a.Challenge.Number == 2 {
					asked++
				}
			}
		}
		if asked != want {
			t.Errorf("asked %d times, want %d", asked, want)
		}
	}
}

// An audit that ends when the shard that it was about is not wanted any more, or not said to
// be there, leaves nothing that is owed.
func TestNothingIsOwedOfWhatIsGone(t *testing.T) {
	late := Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Group: testGroup, Slot: 1, Number: 2}}
	for name, gone := range map[string]func(b *bench){
		"dead": func(b *bench) {
			g, _ := b.Group(testGroup)
			g.Wanted.Remove(2)
			b.SetGroup(g, b.now)
		},
		"not stated": func(b *bench) {
			b.Stated(group.Statement{Holder: key(2), Group: testGroup, Slot: 1}, b.now)
			b.truth[key(2)] = group.Bitmap{}
		},
	} {
		b := newBench(t, 4, 7, 3, func(c *Config, _ *Group) { c.Leaves = 0 })
		b.run(day)
		gone(b)
		b.run(time.Hour)
		b.Audited(late, audit.Refused, b.now)
		b.run(day)
		if n := len(b.State.peers[key(2)].owed); n != 0 {
			t.Errorf("%s: %d shards are owed", name, n)
		}
	}
}

// Of two audits of one shard that is gone, one ends after the shard was brought again: that
// is no lie.
func TestAuditsOfOneShardBesideItsRepair(t *testing.T) {
	b := newBench(t, 4, 7, 3, nil)
	b.run(day)
	prove := Action{Kind: Prove, Peer: key(2), Group: testGroup, Slot: 1, Challenge: audit.Challenge{Group: testGroup, Slot: 1, Number: 2}}
	again := prove
	again.Challenge.Nonce[0] = 1
	b.begin(prove)
	b.begin(again)
	b.Audited(prove, audit.Absent, b.now)
	refill := b.one(b.run(time.Hour), Refill, 1)
	b.Refilled(refill, refill.Packs, b.now)
	if b.Audited(again, audit.Absent, b.now) {
		t.Error("an honest holder is caught")
	}
}
