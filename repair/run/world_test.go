package run_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
	"skep/repair/health"
	"skep/repair/run"
	"skep/test/holders"
	"skep/test/storetest"
)

// account is an owner's account of one group, in memory.
type account struct {
	owner *storetest.Owner

	mu      sync.Mutex // guards all below
	group   group.Group
	packs   map[uint16]storetest.Pack
	wanted  group.Bitmap
	local   group.Bitmap
	held    []group.Bitmap
	said    []group.Bitmap // held, as Groups gave it last
	blind   bool           // something was called gone that Groups did not say was there
	lease   []byte
	number  uint64
	changes []func(*group.Lease) // of the newest lease
	moves   int
	broken  error  // what every call fails with
	onMove  func() // called when a move is to be noted; set before it may be
	// onRelease is called when a release is asked for; set before it may be.
	onRelease func()
	onRead    func(*account) // called once, after the next Groups has looked
}

var errNotHere = errors.New("not kept here")

func (a *account) Groups() ([]run.Group, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	g := a.group
	g.Slots = append([]group.PeerKey(nil), g.Slots...)
	a.said = append([]group.Bitmap(nil), a.held...)
	out := []run.Group{{Group: g, Wanted: a.wanted, Held: append([]group.Bitmap(nil), a.held...), Local: a.local}}
	if fn := a.onRead; fn != nil {
		a.onRead = nil
		fn(a)
	}
	return out, a.broken
}

func (a *account) Lease(group.ID) ([]byte, uint64, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.lease, a.number, a.broken
}

func (a *account) Manifest(_ context.Context, _ group.ID, number uint16) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.packs[number].Word, a.broken
}

func (a *account) Pack(_ group.ID, number uint16) ([]byte, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.local.Has(number) {
		return nil, errNotHere
	}
	var pack []byte
	for _, s := range a.packs[number].Shards[:a.owner.Coding.K] {
		pack = append(pack, s...)
	}
	return pack[:a.owner.Class.Size()], nil
}

func (a *account) Moved(_ group.ID, slot uint8, holder group.PeerKey) error {
	if a.onMove != nil {
		a.onMove()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.broken != nil {
		return a.broken
	}
	a.group.Move(int(slot), holder)
	a.moves++
	return nil
}

func (a *account) Left(_ group.ID, slot uint8, p group.PeerKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.group.Left(slot, p)
	return a.broken
}

func (a *account) Release(_ context.Context, _ group.ID, p group.PeerKey, packs group.Bitmap) ([]byte, error) {
	if a.onRelease != nil {
		a.onRelease()
	}
	a.mu.Lock()
	number, slots, changes, broken := a.number+1, a.group.Slots, a.changes, a.broken
	a.mu.Unlock()
	if slices.Contains(slots, p) {
		return nil, errors.New("release of a holder")
	}
	a.give(number, changes...)
	return group.Release{Holder: p, Number: number, Packs: packs}.Sign(a.owner.Key), broken
}

func (a *account) Released(_ group.ID, p group.PeerKey) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.group.Forget(p)
	return a.broken
}

// former are those of which the account says that they may hold something.
func (a *account) former() []group.Former {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.group.Former
}

func (a *account) Acked(_ group.ID, slot uint8, there, gone group.Bitmap) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blind = a.blind || !a.said[slot].Contains(gone)
	for i := range there {
		a.held[slot][i] = a.held[slot][i]&^gone[i] | there[i]
	}
	return a.broken
}

func (a *account) holder(slot int) group.PeerKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.group.Slots[slot]
}

// has reports whether a pack is known to lie in a slot.
func (a *account) has(slot int, number uint16) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.held[slot].Has(number)
}

func (a *account) moved() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.moves
}

func (a *account) with(fn func(a *account)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fn(a)
}

// give changes the lease.
func (a *account) give(number uint64, changes ...func(*group.Lease)) {
	_, word := a.owner.Lease(number, time.Now().Add(10*365*24*time.Hour).Unix(), changes...)
	a.with(func(a *account) { a.lease, a.number, a.group.Lease, a.changes = word, number, number, changes })
}

// world is an owner with a group, and holders of which some are spare.
type world struct {
	t       *testing.T
	owner   *storetest.Owner
	account *account
	set     *holders.Set
	peers   *peers.Directory
	swarm   *swarm.Swarm
	loop    *run.Loop
	config  run.Config
}

const deadAfter = 72 * time.Hour

type shape struct {
	seed   uint64
	k, n   int
	spares int
	packs  uint16
	local  bool // the owner has the packs at hand
	class  erasure.Class
	health health.Config
}

// newWorld returns a world in which all is well. It is for bubbles.
func newWorld(t *testing.T, s shape) *world {
	t.Helper()
	t.Logf("seed %d", s.seed)
	if s.class == 0 {
		s.class = erasure.MinClass + 3
	}
	w := &world{t: t, owner: storetest.NewOwner(s.seed, s.class, s.k, s.n), set: holders.New(s.seed, s.n+s.spares)}
	w.account = &account{owner: w.owner, packs: map[uint16]storetest.Pack{}, held: make([]group.Bitmap, s.n),
		group: group.Group{ID: w.owner.ID, Class: s.class, Coding: w.owner.Coding, Slots: w.set.Keys(s.n)}}
	w.account.give(1)
	for n := range s.packs {
		w.append(n, s.local)
	}
	w.peers = peers.New(peers.Options{})
	for _, h := range w.set.List() {
		w.greet(h)
	}
	w.swarm = swarm.New(swarm.Config{Holders: w.set, Finder: w.set, Peers: w.peers})
	s.health.Seed = secret.Key{byte(s.seed)}
	if s.health.DeadAfter == 0 {
		s.health.DeadAfter = deadAfter
	}
	w.config = run.Config{Health: s.health, Account: w.account, Holders: w.set, Shards: w.swarm, Peers: w.peers,
		Rand: rand.New(rand.NewPCG(s.seed, 1))}
	w.loop = run.New(w.config)
	return w
}

// append adds a pack that lies with all holders of the group.
func (w *world) append(number uint16, local bool) {
	p := w.owner.Pack(w.t, number)
	for slot, key := range w.account.group.Slots {
		w.set.Of(key).Fill(w.account.lease, p, uint8(slot))
	}
	w.account.with(func(a *account) {
		a.packs[number] = p
		a.wanted.Add(number)
		if local {
			a.local.Add(number)
		}
		for i := range a.held {
			a.held[i].Add(number)
		}
	})
}

func (w *world) greet(h *holders.Holder) {
	w.peers.Said(h.Key, wire.Hello{Offered: 1 << 30, Free: 1 << 30})
}

// settle steps until nothing new begins.
func (w *world) settle() {
	for before := -1; before != w.calls(); {
		before = w.calls()
		w.loop.Step(w.t.Context())
		w.loop.Wait()
	}
}

// pass lets time go by, with the loop looking as often as it should.
func (w *world) pass(d time.Duration) {
	tick := w.config.Health.Tick()
	for ; d > 0; d -= tick {
		<-time.After(min(tick, d))
		w.settle()
	}
}

// whole fails the test unless each slot's holder has its shard of each wanted
// pack, and the account knows.
func (w *world) whole() {
	w.t.Helper()
	if err := w.incomplete(); err != nil {
		w.t.Error(err)
	}
	if r := w.loop.Report(); r.Healthy != r.Packs || r.Missing != 0 {
		w.t.Errorf("report: %+v", r)
	}
}

func (w *world) incomplete() error {
	a := w.account
	a.mu.Lock()
	defer a.mu.Unlock()
	seen := map[group.PeerKey]bool{}
	for slot, key := range a.group.Slots {
		if seen[key] {
			return fmt.Errorf("%v holds two slots", key)
		}
		seen[key] = true
		for n := range a.packs {
			if !a.wanted.Has(n) {
				continue
			}
			if !w.set.Of(key).Holds(w.owner.ID, n, uint8(slot)) {
				return fmt.Errorf("%v does not hold pack %d in slot %d", key, n, slot)
			}
			if !a.held[slot].Has(n) {
				return fmt.Errorf("the account does not know that pack %d lies in slot %d", n, slot)
			}
		}
	}
	return nil
}

// holder is the holder of a slot.
func (w *world) holder(slot int) *holders.Holder { return w.set.Of(w.account.holder(slot)) }

// calls is how often anybody was asked for anything.
func (w *world) calls() (n int) {
	for _, h := range w.set.List() {
		for k := wire.KindHello; k <= wire.KindRelease; k++ {
			n += h.Calls(k)
		}
	}
	return n
}

// puts is how many shards were brought to anybody.
func (w *world) puts() (n int) {
	for _, h := range w.set.List() {
		n += h.Calls(wire.KindPut)
	}
	return n
}

// gets is how many were fetched from anybody.
func (w *world) gets() (n int) {
	for _, h := range w.set.List() {
		n += h.Calls(wire.KindGet)
	}
	return n
}
