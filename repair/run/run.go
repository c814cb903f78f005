// Package run is the loop that keeps a drive's packs whole: it observes the
// holders, has repair/health decide, and does what that says.
//
// A Loop holds one health.State and is the only one to touch it. Each action
// that the state decides on runs in a goroutine of its own, under the state's
// own caps, and reports its end. Nothing waits for the network while holding
// the state.
package run

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/place"
	"skep/repair/health"
)

// Group is a group as the owner's account has it.
type Group struct {
	group.Group
	Wanted group.Bitmap   // packs that are out and not dead
	Held   []group.Bitmap // by slot: packs whose shards its holder acknowledged
	Local  group.Bitmap   // packs that can be built from what is kept here
}

// Account is the owner's account of groups and packs. It may be called
// concurrently.
type Account interface {
	// Groups lists the groups to be kept.
	Groups() ([]Group, error)
	// Lease returns the newest lease of a group, signed, and its number.
	Lease(id group.ID) (word []byte, number uint64, err error)
	// Manifest returns the signed manifest of a pack, asking holders if it is
	// not known here.
	Manifest(ctx context.Context, id group.ID, number uint16) ([]byte, error)
	// Pack returns the bytes of a pack that is kept here.
	Pack(id group.ID, number uint16) ([]byte, error)
	// Moved takes note that a slot has a new holder.
	Moved(id group.ID, slot uint8, holder group.PeerKey) error
	// Acked takes note of the packs whose shards lie in a slot.
	Acked(id group.ID, slot uint8, held group.Bitmap) error
}

// Holders is how holders are asked; *client.Client is one.
type Holders interface {
	Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error)
	Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error)
	Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error
}

// Shards is how shards are read and stored; *swarm.Swarm is one.
type Shards interface {
	Manifest(ctx context.Context, ref group.PackRef) (*group.Manifest, error)
	ReadShards(ctx context.Context, ref group.PackRef) (*group.Manifest, [][]byte, error)
	StoreShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error
}

// Config is what a Loop works with. All but Log are needed.
type Config struct {
	Health  health.Config
	Account Account
	Holders Holders
	Shards  Shards
	Peers   *peers.Directory
	// Candidates are the peers that may become holders.
	Candidates func() []place.Candidate
	Now        func() time.Time
	Rand       *rand.Rand
	Log        *slog.Logger // nil: nowhere
	// Saved is the state of an earlier run, from Save; nil for none.
	Saved []byte
	// Timeout bounds one question; 0 is 20 s.
	Timeout time.Duration
}

// Loop keeps the packs of an account whole. Its methods may be called
// concurrently.
type Loop struct {
	c    Config
	wake chan struct{}
	work sync.WaitGroup

	mu    sync.Mutex // guards all below
	state *health.State
	slots map[group.ID]group.Group       // as the account had them last
	moves map[moveKey]context.CancelFunc // under way
}

type moveKey struct {
	group group.ID
	slot  uint8
}

// New returns a Loop. A saved state that cannot be read is begun anew.
func New(c Config) *Loop {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Timeout == 0 {
		c.Timeout = 20 * time.Second
	}
	l := &Loop{c: c, wake: make(chan struct{}, 1), state: health.New(c.Health),
		slots: map[group.ID]group.Group{}, moves: map[moveKey]context.CancelFunc{}}
	if c.Saved != nil {
		l.takeAccount()
		if err := l.state.Restore(c.Saved, c.Now()); err != nil {
			c.Log.Warn("what was known of holders is begun anew", "err", err)
		}
	}
	return l
}

// minTick bounds how often the loop looks by itself.
const minTick = 50 * time.Millisecond

// Run looks after the packs until ctx ends, and waits for what is under way.
func (l *Loop) Run(ctx context.Context) error {
	defer l.work.Wait()
	tick := time.NewTicker(max(minTick, l.c.Health.Tick()))
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

// Step looks once: it takes in the account, has the state decide, and starts
// what that says. It does not wait for it.
func (l *Loop) Step(ctx context.Context) {
	if err := l.takeAccount(); err != nil {
		l.c.Log.Warn("repair cannot read the account", "err", err)
		return
	}
	candidates := l.loaded(l.c.Candidates())
	l.mu.Lock()
	actions := l.state.Decide(l.c.Now(), candidates, l.c.Rand)
	for _, a := range actions {
		l.start(ctx, a)
	}
	l.mu.Unlock()
}

// Wait returns when nothing is under way.
func (l *Loop) Wait() { l.work.Wait() }

// Refresh has the loop look soon: the account changed.
func (l *Loop) Refresh() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// takeAccount tells the state what the account says now.
func (l *Loop) takeAccount() error {
	groups, err := l.c.Account.Groups()
	if err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.c.Now()
	seen := make(map[group.ID]bool, len(groups))
	for _, g := range groups {
		if g.Wanted == (group.Bitmap{}) {
			continue
		}
		seen[g.ID] = true
		l.slots[g.ID] = g.Group
		hg := health.Group{ID: g.ID, Class: g.Class, Coding: g.Coding, Wanted: g.Wanted, Local: g.Local, Owned: true,
			Slots: make([]health.Slot, len(g.Slots))}
		for i, p := range g.Slots {
			hg.Slots[i] = health.Slot{Holder: p, Held: g.Held[i]}
		}
		l.state.SetGroup(hg, now)
	}
	for id := range l.slots {
		if !seen[id] {
			l.state.DropGroup(id)
			delete(l.slots, id)
		}
	}
	return nil
}

// loaded tells the candidates how many slots they hold already.
func (l *Loop) loaded(all []place.Candidate) []place.Candidate {
	l.mu.Lock()
	defer l.mu.Unlock()
	load := map[group.PeerKey]int{}
	for _, g := range l.slots {
		for _, p := range g.Slots {
			load[p]++
		}
	}
	for i := range all {
		all[i].Load = load[all[i].Key]
	}
	return all
}

// start runs an action; l.mu is held.
func (l *Loop) start(ctx context.Context, a health.Action) {
	if a.Kind == health.Cancel {
		if cancel, ok := l.moves[moveKey{a.Group, a.Slot}]; ok {
			cancel()
		}
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	k := moveKey{a.Group, a.Slot}
	if a.Kind == health.Move {
		l.moves[k] = cancel
	}
	g := l.slots[a.Group]
	l.work.Go(func() {
		defer l.Refresh()
		defer cancel()
		switch a.Kind {
		case health.Ask:
			l.ask(ctx, a)
		case health.Prove:
			l.prove(ctx, a, g)
		default:
			l.repair(ctx, a, g)
		}
		if a.Kind == health.Move {
			l.mu.Lock()
			delete(l.moves, k)
			l.mu.Unlock()
		}
	})
}

// with calls fn with the state.
func (l *Loop) with(fn func(s *health.State, now time.Time)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fn(l.state, l.c.Now())
}

// Pause stops repairs from being begun, or lets them go on. Those under way go
// on.
func (l *Loop) Pause(on bool) {
	l.with(func(s *health.State, _ time.Time) { s.Pause(on) })
	l.Refresh()
}

// Report is the sum of everything, for status.
func (l *Loop) Report() (r health.Report) {
	l.with(func(s *health.State, now time.Time) { r = s.Report(now) })
	return r
}

// PackHealth is how one pack is; ok is false for one that is not kept.
func (l *Loop) PackHealth(id group.ID, number uint16) (h health.PackHealth, ok bool) {
	l.with(func(s *health.State, now time.Time) { h, ok = s.Pack(id, number, now) })
	return h, ok
}

// PeerState is what is thought of a holder.
func (l *Loop) PeerState(p group.PeerKey) (st peers.State) {
	l.with(func(s *health.State, _ time.Time) { st = s.PeerState(p) })
	return st
}

// Save returns what is known of holders, for a later run.
func (l *Loop) Save() (b []byte) {
	l.with(func(s *health.State, _ time.Time) { b = s.Encode() })
	return b
}

// judged tells the directory of peers what is thought of one.
func (l *Loop) judged(p group.PeerKey) {
	l.c.Peers.Judge(p, l.PeerState(p))
}

// acked tells the account what is believed to lie in a slot.
func (l *Loop) acked(id group.ID, slot uint8) {
	var held group.Bitmap
	known := false
	l.with(func(s *health.State, _ time.Time) {
		if g, ok := s.Group(id); ok && int(slot) < len(g.Slots) {
			held, known = g.Slots[slot].Held, true
		}
	})
	if !known {
		return
	}
	if err := l.c.Account.Acked(id, slot, held); err != nil {
		l.c.Log.Warn("what lies in a slot was not noted", "group", id, "slot", slot, "err", err)
	}
}

// refOf names a pack of a group.
func (l *Loop) refOf(ctx context.Context, g group.Group, number uint16) (group.PackRef, error) {
	ref := group.PackRef{Group: g.ID, Number: number, Class: g.Class, Coding: g.Coding, Slots: g.Slots}
	word, err := l.c.Account.Manifest(ctx, g.ID, number)
	if err != nil {
		return ref, fmt.Errorf("pack %d of group %v: %w", number, g.ID, err)
	}
	ref.Manifest = word
	return ref, nil
}
