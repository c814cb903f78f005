package run

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/health"
)

// Holders is how holders are asked; *client.Client is one. Its errors are those
// of package client.
type Holders interface {
	Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error)
	Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error)
	Release(ctx context.Context, p group.PeerKey, release []byte) (group.Statement, error)
	Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error
}

// Shards is how shards are built and stored; *swarm.Swarm is one.
type Shards interface {
	// Manifest returns the checked manifest of a pack.
	Manifest(ctx context.Context, ref group.PackRef) (*group.Manifest, error)
	// Rebuild returns one shard, built from any k others and checked.
	Rebuild(ctx context.Context, ref group.PackRef, slot uint8) ([]byte, error)
	// StoreShard brings a shard to a peer, with the lease of its group.
	StoreShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error
}

// Config is what a Loop works with. Account, Holders, Shards, Peers and Rand
// are needed.
type Config struct {
	Health  health.Config
	Account Account
	Holders Holders
	Shards  Shards
	Peers   *peers.Directory
	// Candidates are the peers that may become holders; their Load is filled in
	// by the loop. nil stands for those in Peers that said hello, have room, and
	// are neither silent nor barred for a lie.
	Candidates func() []place.Candidate
	Now        func() time.Time // nil is time.Now
	Rand       *rand.Rand       // the Loop's own from New on
	Log        *slog.Logger     // nil: nowhere
	// Saved is the state of an earlier run, from Save; nil for none. Forgotten says that
	// there was one of which nothing is left: what the account says to be with holders is
	// presumed until they were asked. So it is if Saved cannot be read.
	Saved     []byte
	Forgotten bool
	// Timeout bounds one question; 0 is 20 s.
	Timeout time.Duration
}

func (c Config) withDefaults() Config {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	if c.Candidates == nil {
		c.Candidates = c.usable
	}
	return c
}

// The loop looks by itself at least every longestPause, so that the account is
// read that often, and no more often than every shortestPause.
const (
	shortestPause = 50 * time.Millisecond
	longestPause  = time.Minute
)

// pause is how long the loop rests unless it is woken.
func (c Config) pause() time.Duration {
	return min(longestPause, max(shortestPause, c.Health.Tick()))
}

// buildMemory bounds the shards in memory of all packs from which shards are
// built at once: enough for one pack of the largest class.
const buildMemory = 128 << 20

// Loop keeps the packs of an account whole. Its methods may be called
// concurrently.
type Loop struct {
	c      Config
	wake   chan struct{}
	again  atomic.Bool // the account is to be read at the next Step
	work   sync.WaitGroup
	memory *semaphore.Weighted // of buildMemory

	step  sync.Mutex // one Step at a time; guards the fields up to mu
	taken time.Time  // when the account was read last
	heard map[group.PeerKey]time.Time

	mu      sync.Mutex // guards all below; never held while waiting for the network
	state   *health.State
	groups  map[group.ID]group.Group // as the account has them
	given   map[group.ID]Group       // as the state was told last
	telling map[group.ID]int         // new holders of which the account is being told
	moved   map[group.ID]bool        // it was told of these since it began to be read
	moves   map[slotKey]*move        // under way
	avoided map[group.PeerKey]avoidance
	struck  map[group.PeerKey]time.Time // last lies in the directory that the state knows of
	begun   time.Time
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Loop) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "run.Loop(…)") }

type slotKey struct {
	group group.ID
	slot  uint8
}

// move is a Move that can be cancelled.
type move struct{ cancel context.CancelFunc }

// New returns a Loop. A saved state that cannot be read is begun anew.
func New(c Config) *Loop {
	c = c.withDefaults()
	l := &Loop{
		c:       c,
		wake:    make(chan struct{}, 1),
		memory:  semaphore.NewWeighted(buildMemory),
		heard:   map[group.PeerKey]time.Time{},
		state:   health.New(c.Health),
		groups:  map[group.ID]group.Group{},
		given:   map[group.ID]Group{},
		telling: map[group.ID]int{},
		moved:   map[group.ID]bool{},
		moves:   map[slotKey]*move{},
		avoided: map[group.PeerKey]avoidance{},
		struck:  map[group.PeerKey]time.Time{},
		begun:   c.Now(),
	}
	l.again.Store(true)
	if c.Saved != nil {
		if err := l.state.Restore(c.Saved, c.Now()); err != nil {
			c.Log.Warn("what was known of holders is begun anew", "err", err)
			c.Forgotten = true
		}
	}
	if c.Forgotten {
		l.state.Doubt()
	}
	return l
}

// Run looks after the packs until ctx ends, and then waits for what is under
// way. It returns nil.
func (l *Loop) Run(ctx context.Context) error {
	defer l.work.Wait()
	tick := time.NewTicker(l.c.pause())
	defer tick.Stop()
	for {
		l.Step(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-l.wake:
		}
	}
}

// Step looks once: it takes in what is new, has the state decide, and starts
// what that says. It does not wait for what it starts, which ends with ctx.
func (l *Loop) Step(ctx context.Context) {
	l.step.Lock()
	defer l.step.Unlock()
	if ctx.Err() != nil {
		return
	}
	if err := l.takeAccount(); err != nil {
		l.again.Store(true)
		l.c.Log.Warn("repair goes by what it knew: the account cannot be read", "err", err)
	}
	known := l.hear()
	candidates := l.c.Candidates()
	l.mu.Lock()
	actions := l.state.Decide(l.c.Now(), l.withOthers(l.fit(candidates), known), l.c.Rand)
	for _, a := range actions {
		l.start(ctx, a)
	}
	l.mu.Unlock()
	l.judge(known)
}

// Refresh has the loop read the account again and look soon.
func (l *Loop) Refresh() {
	l.again.Store(true)
	l.rouse()
}

// rouse has the loop look soon.
func (l *Loop) rouse() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// start runs an action. Caller holds mu.
func (l *Loop) start(ctx context.Context, a health.Action) {
	k := slotKey{a.Group, a.Slot}
	if a.Kind == health.Cancel {
		if m := l.moves[k]; m != nil {
			m.cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	m := &move{cancel}
	if a.Kind == health.Move {
		l.moves[k] = m
	}
	g := l.groups[a.Group]
	l.work.Go(func() {
		defer l.rouse()
		defer cancel()
		switch a.Kind {
		case health.Ask:
			l.ask(ctx, a)
		case health.Prove:
			l.prove(ctx, a, g)
		case health.Release:
			l.release(ctx, a)
		default:
			l.repair(ctx, a, g, m)
		}
	})
}

// with calls fn with the state.
func (l *Loop) with(fn func(s *health.State, now time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l.state, l.c.Now())
}

// believed is what the state believes to lie in a slot; nothing if the group is
// not kept.
func (l *Loop) believed(id group.ID, slot uint8) (held group.Bitmap) {
	l.with(func(s *health.State, _ time.Time) { held = believed(s, id, slot) })
	return held
}

func believed(s *health.State, id group.ID, slot uint8) group.Bitmap {
	if g, ok := s.Group(id); ok && int(slot) < len(g.Slots) {
		return g.Slots[slot].Held
	}
	return group.Bitmap{}
}

// Pause stops repairs from being begun, or lets them go on. Those under way go
// on, and so do questions and audits.
func (l *Loop) Pause(on bool) {
	l.with(func(s *health.State, _ time.Time) { s.Pause(on) })
	l.rouse()
}

// Presume has holders asked again, at once, what they have: somebody else may have had them
// delete some of it. Until then it is only presumed.
func (l *Loop) Presume() {
	l.with(func(s *health.State, _ time.Time) { s.Presume() })
	l.rouse()
}

// Report is the sum of everything, for status, with who is silent at this moment.
func (l *Loop) Report() (r health.Report) {
	known := l.c.Peers.List()
	l.with(func(s *health.State, now time.Time) {
		for _, p := range known {
			s.Answers(p.Key, p.Misses == 0)
		}
		r = s.Report(now)
	})
	return r
}

// Lost are the packs with fewer than k shards left and no copy here, by group.
func (l *Loop) Lost() (lost map[group.ID]group.Bitmap) {
	l.with(func(s *health.State, now time.Time) { lost = s.LostPacks(now) })
	return lost
}

// OnlyHere are the packs with fewer than k shards left of which there is a copy here, by
// group.
func (l *Loop) OnlyHere() (packs map[group.ID]group.Bitmap) {
	l.with(func(s *health.State, now time.Time) { packs = s.OnlyHere(now) })
	return packs
}

// PackHealth is how one pack is; ok is false for one that is not kept.
func (l *Loop) PackHealth(id group.ID, number uint16) (h health.PackHealth, ok bool) {
	l.with(func(s *health.State, now time.Time) { h, ok = s.Pack(id, number, now) })
	return h, ok
}

// PeerState is what is thought of a holder: Unknown for a peer that holds
// nothing.
func (l *Loop) PeerState(p group.PeerKey) (st peers.State) {
	l.with(func(s *health.State, _ time.Time) { st = s.PeerState(p) })
	return st
}

// Save returns what is known of holders, for a later run.
func (l *Loop) Save() (b []byte) {
	l.with(func(s *health.State, now time.Time) { b = s.Encode(now) })
	return b
}
