package swarm

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/wire"
)

// mood is how a fake holder behaves.
type mood int

const (
	right mood = iota
	slow       // right, after it was released
	gone
	absent // there, and has nothing
	lying
	full
	busy
	twoFaced // right with proof only
	rotten   // wrong without proof, with it sees that it has nothing
	stalling // wrong without proof, and slow with it
	halting  // sends all but the last byte, and then is slow
	moods    // how many there are
)

func (m mood) String() string {
	return [...]string{"right", "slow", "gone", "absent", "lying", "full", "busy", "two-faced", "rotten", "stalling", "halting"}[m]
}

type shardKey struct {
	packKey
	slot uint8
}

// holder is a peer that holds shards in memory.
type holder struct {
	mood   mood
	strict bool // it takes no shard of a group before a lease
	claims bool // it states what its mood will not give
	leases map[group.ID]bool
	slots  map[group.ID]uint8
	shards map[shardKey][]byte
	words  map[packKey][]byte // manifests
	calls  map[wire.Kind]int
}

// swarmOf is a swarm of peers in memory. It is the Holders and the Finder of a
// Swarm.
type swarmOf struct {
	mu        sync.Mutex // guards all below, and what the holders hold
	peers     map[group.PeerKey]*holder
	released  chan struct{}
	drip      time.Duration // how often a byte comes from slow holders; 0 for never
	found     map[group.ID][]group.PeerKey
	finds     int
	searching bool // the directory does not come to its end
	waits     int  // calls that slow holders do not answer
}

func newSwarmOf(n int) *swarmOf {
	f := &swarmOf{peers: map[group.PeerKey]*holder{}, released: make(chan struct{}), found: map[group.ID][]group.PeerKey{}}
	for i := range n {
		f.add(i)
	}
	return f
}

func (f *swarmOf) add(i int) *holder {
	h := &holder{
		leases: map[group.ID]bool{}, slots: map[group.ID]uint8{}, shards: map[shardKey][]byte{},
		words: map[packKey][]byte{}, calls: map[wire.Kind]int{},
	}
	f.peers[peerKey(i)] = h
	return h
}

// claim adds a peer that claims to hold a slot of a pack, and is of its mood when
// it is asked for its shard; those that are slow or gone, half of them, already
// when they are to say so.
func (f *swarmOf) claim(p testPack, i int, slot uint8, m mood) {
	h := f.add(i)
	h.mood, h.slots[p.Group] = m, slot
	h.claims = i%2 == 0 || m == absent || m == lying
	h.shards[shardKey{packKey{p.Group, p.Number}, slot}] = nil
}

func peerKey(i int) (k group.PeerKey) {
	binary.BigEndian.PutUint32(k[:], uint32(i+1))
	return k
}

// call returns the holder if it is to answer, or how it fails. Slow ones take
// until they are released.
func (f *swarmOf) call(ctx context.Context, kind wire.Kind, p group.PeerKey) (*holder, error) {
	f.mu.Lock()
	h := f.peers[p]
	m := gone
	if h != nil {
		h.calls[kind]++
		m = h.mood
		if h.claims && kind == wire.KindStatement {
			m = right
		}
		if (m == stalling || m == halting) && kind == wire.KindGet {
			m = slow
		}
	}
	f.mu.Unlock()
	fail := func(err error) (*holder, error) { return nil, &client.Error{Op: kind, Peer: p, Err: err} }
	if err := ctx.Err(); err != nil {
		return fail(err)
	}
	switch m {
	case slow:
		f.with(func() { f.waits++ })
		defer f.with(func() { f.waits-- })
		for {
			var next <-chan time.Time
			if f.drip > 0 {
				next = time.After(f.drip)
			}
			select {
			case <-next:
				client.Tell(ctx, 1)
				continue
			case <-f.released:
			case <-ctx.Done():
				return fail(ctx.Err())
			}
			break
		}
	case gone:
		return fail(client.ErrUnreachable)
	case rotten:
		if kind == wire.KindGet {
			return fail(client.ErrAbsent)
		}
	case absent:
		if kind != wire.KindPut && kind != wire.KindAdmit {
			return fail(client.ErrAbsent)
		}
	case lying:
		return fail(fmt.Errorf("%w: %w", client.ErrLied, erasure.ErrProof))
	case busy:
		return fail(client.ErrBusy)
	case full:
		if kind == wire.KindPut || kind == wire.KindAdmit {
			return fail(client.ErrFull)
		}
	}
	return h, nil
}

func (f *swarmOf) Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error) {
	h, err := f.call(ctx, wire.KindAdmit, p)
	if err != nil {
		return group.Statement{}, err
	}
	l, err := group.ParseLease(lease)
	if err != nil {
		return group.Statement{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	h.leases[l.Group] = true
	h.slots[l.Group] = slot
	return group.Statement{Holder: p, Group: l.Group, Slot: slot, Lease: l.Number}, nil
}

func (f *swarmOf) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	h, err := f.call(ctx, wire.KindPut, p)
	if err != nil {
		return err
	}
	m, err := group.ParseManifest(manifest)
	if err != nil || erasure.RootOf(shard) != m.Roots[slot] {
		return &client.RefusedError{Reason: "not the shard"}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if h.strict && !h.leases[m.Group] {
		return &client.RefusedError{Reason: "no lease"}
	}
	h.take(m, manifest, slot, shard)
	return nil
}

func (h *holder) take(m group.Manifest, word []byte, slot uint8, shard []byte) {
	k := packKey{m.Group, m.Number}
	h.words[k] = word
	h.shards[shardKey{k, slot}] = shard
	h.slots[m.Group] = slot
}

func (f *swarmOf) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	f.mu.Lock()
	if h := f.peers[p]; h != nil {
		h.calls[kindProved]++
	}
	f.mu.Unlock()
	return f.get(ctx, p, m, slot, off, n)
}

func (f *swarmOf) get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	if !wire.Aligned(m.ShardSize(), off, n) {
		panic(fmt.Sprintf("range %d+%d of a shard of %d", off, n, m.ShardSize()))
	}
	f.mu.Lock()
	if h := f.peers[p]; h != nil && h.mood == halting {
		client.Tell(ctx, n-1)
	}
	f.mu.Unlock()
	h, err := f.call(ctx, wire.KindGet, p)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	shard, ok := h.shards[shardKey{packKey{m.Group, m.Number}, slot}]
	if !ok {
		return nil, client.ErrAbsent
	}
	return append([]byte(nil), shard[off:][:n]...), nil
}

// kindBare counts the calls of GetBare that bring wrong bytes, kindProved those
// of Get.
const (
	kindBare   = wire.Kind(100)
	kindProved = wire.Kind(101)
)

// GetBare returns wrong bytes, of those who do not send the right ones. Who fails
// has written to the room.
func (f *swarmOf) GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, room func(int) []byte) ([]byte, error) {
	var b []byte
	if room != nil {
		b = room(n)
	}
	if b == nil {
		b = make([]byte, n)
	}
	f.mu.Lock()
	h := f.peers[p]
	if h == nil || !slices.Contains([]mood{lying, twoFaced, rotten, stalling}, h.mood) {
		f.mu.Unlock()
		got, err := f.get(ctx, p, m, slot, off, n)
		if err != nil {
			clear(b)
			return nil, err
		}
		copy(b, got)
		return b, nil
	}
	defer f.mu.Unlock()
	h.calls[kindBare]++
	copy(b, h.shards[shardKey{packKey{m.Group, m.Number}, slot}][off:])
	for i := range b {
		b[i] ^= 1
	}
	client.Tell(ctx, n)
	return b, nil
}

func (f *swarmOf) Manifests(ctx context.Context, p group.PeerKey, id group.ID, wanted group.Bitmap) (map[uint16][]byte, error) {
	h, err := f.call(ctx, wire.KindManifests, p)
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	out := map[uint16][]byte{}
	for k, word := range h.words {
		if k.group == id && wanted.Has(k.number) {
			out[k.number] = word
		}
	}
	return out, nil
}

func (f *swarmOf) Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error) {
	h, err := f.call(ctx, wire.KindStatement, p)
	if err != nil {
		return group.Statement{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	slot, ok := h.slots[id]
	if !ok {
		return group.Statement{}, client.ErrAbsent
	}
	st := group.Statement{Holder: p, Group: id, Slot: slot}
	for k := range h.shards {
		if k.group == id {
			st.Held.Add(k.number)
		}
	}
	return st, nil
}

func (f *swarmOf) EachHolder(ctx context.Context, id group.ID, limit int, fn func(group.PeerKey)) error {
	f.mu.Lock()
	f.finds++
	found, searching := f.found[id], f.searching
	f.mu.Unlock()
	for _, p := range found {
		fn(p)
	}
	if searching { // it waits for somebody who is silent
		<-ctx.Done()
	}
	return ctx.Err()
}

func (f *swarmOf) with(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

func (f *swarmOf) set(m mood, slots ...int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, i := range slots {
		f.peers[peerKey(i)].mood = m
	}
}

func (f *swarmOf) calls(kind wire.Kind, i int) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.peers[peerKey(i)].calls[kind]
}

// allCalls is how many calls of a kind all peers got.
func (f *swarmOf) allCalls(kind wire.Kind) (n int) {
	for i := range f.peers {
		n += f.calls(kind, int(binary.BigEndian.Uint32(i[:]))-1)
	}
	return n
}

// testPack is a pack with all that is known of it.
type testPack struct {
	group.PackRef
	lease    []byte
	bytes    []byte
	shards   [][]byte
	manifest group.Manifest
}

var groupKey = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))

// makePack codes pack number of the test's group: slot i is peer i's.
func makePack(t testing.TB, class erasure.Class, k, n int, number uint16) testPack {
	t.Helper()
	p := testPack{bytes: make([]byte, class.Size())}
	src := rand.NewChaCha8([32]byte{byte(number), byte(k), byte(n)})
	_, _ = src.Read(p.bytes)
	p.PackRef = group.PackRef{Group: group.IDOf(groupKey), Number: number, Class: class, Coding: erasure.NewCoding(k, n)}
	p.shards = p.Coding.Split(class, p.bytes, nil)
	if err := p.Coding.Encode(p.shards); err != nil {
		t.Fatal(err)
	}
	p.manifest = group.Manifest{Number: number, Class: class, Coding: p.Coding}
	for i, shard := range p.shards {
		p.Slots = append(p.Slots, peerKey(i))
		p.manifest.Roots = append(p.manifest.Roots, erasure.RootOf(shard))
	}
	p.Manifest = p.manifest.Sign(groupKey)
	p.manifest.Group = p.Group
	p.lease = group.Lease{Number: 1, Until: 1 << 40, Packs: 256, Bytes: 1 << 40}.Sign(groupKey)
	return p
}

func (p *testPack) group() group.Group {
	return group.Group{ID: p.Group, Class: p.Class, Coding: p.Coding, Slots: p.Slots}
}

// hold gives each holder its shard of a pack.
func (f *swarmOf) hold(p testPack) {
	for i, shard := range p.shards {
		f.holdAt(p, i, uint8(i), shard)
	}
}

func (f *swarmOf) holdAt(p testPack, peer int, slot uint8, shard []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.peers[peerKey(peer)].take(p.manifest, p.Manifest, slot, shard)
}

// bench is a Swarm over peers in memory, in a bubble of its own time.
type bench struct {
	*testing.T
	*Swarm
	f     *swarmOf
	pack  testPack
	begin time.Time
}

const (
	testHedge = 400 * time.Millisecond
	testGrace = 5 * time.Second
	testClass = erasure.Class(18) // 256 KiB
)

// inBubble runs fn with a swarm of n holders, and spare peers, that hold one
// pack of a coding of k of n. It fails if anything is left running at the end.
func inBubble(t *testing.T, k, n, spare int, fn func(b *bench)) {
	pack := makePack(t, testClass, k, n, 0)
	synctest.Test(t, func(t *testing.T) {
		f := newSwarmOf(n + spare)
		f.hold(pack)
		d := peers.New(peers.Options{})
		for i := range n + spare {
			d.Said(peerKey(i), wire.Hello{Offered: 1 << 30, Free: 1 << 30})
		}
		fn(&bench{t, New(Config{Holders: f, Finder: f, Peers: d}), f, pack, time.Now()})
	})
}

// took fails unless so much time has passed since the beginning.
func (b *bench) took(want time.Duration) {
	b.Helper()
	if took := time.Since(b.begin); took != want {
		b.Errorf("took %v, want %v", took, want)
	}
}

func (b *bench) peer(i int) peers.Peer {
	p, _ := b.c.Peers.Get(peerKey(i))
	return p
}

// sleep lets the bubble's time pass.
func (b *bench) sleep(d time.Duration) { <-time.After(d) }
