package health

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/net/peers"
	"skep/repair/audit"
)

// DefaultDeadAfter is the time scale unless told otherwise.
const DefaultDeadAfter = 72 * time.Hour

// MaxLies is how many lies make a peer count as dead.
const MaxLies = 3

// Config of a State. The zero value of each field but Self and Seed stands for
// a default.
type Config struct {
	Self      group.PeerKey // this device as a holder
	Seed      secret.Key    // of the audits, random and kept to itself
	DeadAfter time.Duration // the time scale; 0 is DefaultDeadAfter
	Repairs   int           // repairs under way at once; 0 is 4
	Pace      int           // repairs begun in each DeadAfter, urgent ones apart; 0 is 720
	Asks      int           // questions under way at once; 0 is 16
	Proofs    int           // audits under way at once; 0 is 8
	Leaves    int           // audited of each peer in a third of DeadAfter; 0 is audit.PerDay, negative none
}

func (c Config) withDefaults() Config {
	if c.DeadAfter <= 0 {
		c.DeadAfter = DefaultDeadAfter
	}
	for _, d := range []struct {
		field *int
		value int
	}{{&c.Repairs, 4}, {&c.Pace, 720}, {&c.Asks, 16}, {&c.Proofs, 8}, {&c.Leaves, audit.PerDay}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

// The intervals that follow from the time scale.
func (c Config) suspectAfter() time.Duration { return c.DeadAfter / 12 }
func (c Config) ownersTime() time.Duration   { return c.DeadAfter / 3 }
func (c Config) patience() time.Duration     { return 10 * c.DeadAfter } // with shards that are missing
func (c Config) firstRetry() time.Duration   { return c.DeadAfter / 144 }
func (c Config) moment() time.Duration       { return c.DeadAfter / 864 }
func (c Config) lastRetry() time.Duration    { return c.DeadAfter / 3 }
func (c Config) auditsIn() time.Duration     { return c.DeadAfter / 3 }
func (c Config) askedIn() time.Duration      { return c.DeadAfter / 3 } // about each slot

// salvageIn is no divisor of a day, as a rule: who is there for some hours of each is met.
func (c Config) salvageIn() time.Duration { return c.DeadAfter / 4 }

// backoff is how long after so many failures and one more the next attempt is.
func (c Config) backoff(fails int) time.Duration {
	return min(c.firstRetry()<<min(fails, 16), c.lastRetry())
}

// LieMemory is how long a lie is remembered.
func (c Config) LieMemory() time.Duration { return 120 * c.withDefaults().DeadAfter }

// Tick is how often Decide should be called at least: less often, and time
// that passes is not wholly counted.
func (c Config) Tick() time.Duration { return c.withDefaults().DeadAfter / 72 }

// Group is what is to be kept of a group and who keeps it.
type Group struct {
	ID     group.ID
	Class  erasure.Class
	Coding erasure.Coding
	Wanted group.Bitmap // packs that are out and not dead
	// Idle are those of the wanted packs of which nothing is needed any more. They
	// are kept as long as they are there, and nobody misses them.
	Idle  group.Bitmap
	Local group.Bitmap // packs that this device can build without asking anybody
	// Unknown are packs of which the account does not know where their shards
	// are, as on a device that has just been recovered: until a holder was asked,
	// they are presumed to be with it.
	Unknown group.Bitmap
	Owned   bool           // this device is the one to repair it first
	Slots   []Slot         // n of them
	Former  []group.Former // who may still hold shards of a slot that is not theirs
}

// Slot is one slot of a group.
type Slot struct {
	Holder group.PeerKey // zero is nobody
	Held   group.Bitmap  // packs whose shards it acknowledged
	Leave  bool          // the slot shall go to another holder although this one is there
}

// State is what is known and what is under way.
type State struct {
	cfg    Config
	paused bool

	peers      map[group.PeerKey]*peer
	formers    map[group.PeerKey]*formerPeer
	groups     map[group.ID]*keptGroup
	peerOrder  []group.PeerKey // sorted keys of peers
	groupOrder []group.ID      // sorted keys of groups
	presuming  bool            // of some slots it is only presumed what they hold
	dated      bool            // what the account says of groups was learnt long ago
	turn       int             // the peer with which the next round of questions begins

	begun    map[task]underWay
	repairs  int // how many of begun are repairs
	asks     int
	proofs   int
	freeing  int     // releases
	allowed  float64 // repairs that may begin now
	counter  uint64  // of audits
	watch    watch
	lastTime time.Time
}

// Format hides the seed by which secrets of challenges are drawn from every
// formatting verb.
func (s State) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "health.State(…)") }

// New returns a State that knows nothing yet.
func New(c Config) *State {
	return &State{
		cfg:     c.withDefaults(),
		peers:   map[group.PeerKey]*peer{},
		formers: map[group.PeerKey]*formerPeer{},
		groups:  map[group.ID]*keptGroup{},
		begun:   map[task]underWay{},
	}
}

// Pause stops repairs from being begun; asking and auditing go on. Those under
// way go on.
func (s *State) Pause(on bool) { s.paused = on }

// watch counts the time in which we would have noticed an answer.
type watch struct {
	last     time.Time // of the last look
	answered time.Time // when anybody answered last
	total    time.Duration
}

// look counts the time since the last look, if anybody answered lately.
func (w *watch) look(now time.Time, lately time.Duration) {
	gap := now.Sub(w.last)
	if !w.last.IsZero() && gap > 0 && now.Sub(w.answered) <= lately {
		w.total += min(gap, lately)
	}
	w.last = now
}

// peer is what is known of a holder.
type peer struct {
	key       group.PeerKey
	state     peers.State
	seen      time.Time     // when it answered last, or became known
	seenWatch time.Duration // the watch at that time
	heard     bool          // it answered since it became known
	silent    bool          // the last question that anybody put to it went without an answer
	kept      bool          // restored, its groups may come yet
	asked     time.Time
	missed    time.Time // when a question to it brought no statement last
	proved    time.Time // when it passed an audit last
	audited   time.Time // when the next audit is due
	lies      []time.Time
	owed      []owed          // what it did not prove when asked
	muted     bool            // of some of these no answer came, and it was not heard since
	due       int             // audits of what it owes that are due at once
	shirks    bool            // it owes something for so long that it shall hold nothing
	slots     []slotRef       // that it holds
	turn      int             // the slot to be asked about next
	holdings  []audit.Holding // what is believed to be there; nil when it has to be listed anew
	leaves    uint64          // of holdings
}

// slotRef names a slot of a group that is kept.
type slotRef struct {
	group *keptGroup
	slot  int
}

// peerOf returns the peer, which becomes known with this.
func (s *State) peerOf(key group.PeerKey, now time.Time) *peer {
	p, ok := s.peers[key]
	if !ok {
		p = &peer{key: key, seen: now, seenWatch: s.watch.total}
		s.peers[key] = p
		i, _ := slices.BinarySearchFunc(s.peerOrder, key, comparePeers)
		s.peerOrder = slices.Insert(s.peerOrder, i, key)
		s.judge(p, now)
	}
	return p
}

func comparePeers(a, b group.PeerKey) int { return bytes.Compare(a[:], b[:]) }
func compareGroups(a, b group.ID) int     { return bytes.Compare(a[:], b[:]) }

// PeerState returns what is thought of a peer: Unknown for one that holds
// nothing, unless it lied, or fell silent while it held something.
func (s *State) PeerState(key group.PeerKey) peers.State {
	if key == s.cfg.Self {
		return peers.Alive
	}
	if p, ok := s.peers[key]; ok {
		return p.state
	}
	return peers.Unknown
}

// judge sets a peer's state, and has its groups counted anew if it changed.
func (s *State) judge(p *peer, now time.Time) {
	was := p.state
	p.lies = slices.DeleteFunc(p.lies, func(t time.Time) bool { return now.Sub(t) > s.cfg.LieMemory() })
	switch {
	case p.key == s.cfg.Self:
		p.state = peers.Alive
	case len(p.lies) >= MaxLies, s.watch.total-p.seenWatch >= s.cfg.DeadAfter:
		p.state = peers.Dead
	case now.Sub(p.seen) > s.cfg.suspectAfter():
		p.state = peers.Suspect
	case p.heard:
		p.state = peers.Alive
	default:
		p.state = peers.Unknown
	}
	if p.state == was {
		return
	}
	for _, r := range p.slots {
		r.group.stale = true
	}
}
