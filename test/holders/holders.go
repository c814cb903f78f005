package holders

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"syscall"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
	"skep/test/storetest"
)

// Stall is how long a silent holder is waited for, as by net/client.
const Stall = 30 * time.Second

// Behaviour is how a holder answers. The zero value is that of a good one.
type Behaviour struct {
	Away     bool          // it cannot be reached, which shows at once
	Silent   bool          // it takes calls and says nothing
	Mute     bool          // likewise, but only when it is to prove
	Delay    time.Duration // before each answer
	Lag      time.Duration // from each answer to its arrival
	Flips    bool          // one bit of what it sends of shards is wrong
	Full     bool          // it takes no shards
	Unwilled bool          // it takes no slot
	Busy     bool
}

// Holder is one peer.
type Holder struct {
	Key   group.PeerKey
	Store *storetest.Memory

	all   *Set
	how   Behaviour           // guarded by Set.mu
	calls map[wire.Kind]int   // likewise
	bytes map[wire.Kind]int64 // of shards, likewise
}

// Set is all holders. It satisfies the interfaces by which net/swarm and
// repair/run ask holders, and net/swarm finds them.
type Set struct {
	mu   sync.Mutex // guards all below, and the fields of holders that say so
	all  map[group.PeerKey]*Holder
	list []*Holder
}

// New returns n holders, whose keys follow from the seed.
func New(seed uint64, n int) *Set {
	s := &Set{all: map[group.PeerKey]*Holder{}}
	for range n {
		s.Add(seed)
	}
	return s
}

// Add returns one more holder, that offers a GiB.
func (s *Set) Add(seed uint64) *Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	key := storetest.Key(seed<<20 + uint64(len(s.list)) + 1)
	h := &Holder{Key: group.PeerKey(group.IDOf(key)), Store: storetest.NewMemory(1 << 30), all: s,
		calls: map[wire.Kind]int{}, bytes: map[wire.Kind]int64{}}
	s.all[h.Key] = h
	s.list = append(s.list, h)
	return h
}

// List returns all holders in the order in which they came.
func (s *Set) List() []*Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Holder(nil), s.list...)
}

// Of returns the holder with this key.
func (s *Set) Of(k group.PeerKey) *Holder {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.all[k]
}

// Keys returns the keys of the first n.
func (s *Set) Keys(n int) []group.PeerKey {
	keys := make([]group.PeerKey, n)
	for i, h := range s.List()[:n] {
		keys[i] = h.Key
	}
	return keys
}

// Be changes how a holder answers from now on.
func (h *Holder) Be(how Behaviour) {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	h.how = how
}

// Calls is how often the holder was asked so.
func (h *Holder) Calls(k wire.Kind) int {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	return h.calls[k]
}

// Bytes is how much of shards was asked for or brought so.
func (h *Holder) Bytes(k wire.Kind) int64 {
	h.all.mu.Lock()
	defer h.all.mu.Unlock()
	return h.bytes[k]
}

// Fill admits the lease and stores a shard, as if it had always been there.
func (h *Holder) Fill(lease []byte, p storetest.Pack, slot uint8) {
	l, err := group.ParseLease(lease)
	if err == nil {
		if _, err = h.Store.Admit(l, lease, slot, group.PeerKey{}); err == nil {
			err = h.Store.PutShard(&p.Manifest, p.Word, slot, bytes.NewReader(p.Shards[slot]))
		}
	}
	if err != nil {
		panic("BUG: holders: " + err.Error())
	}
}

// Holds reports whether the holder has its shard of a pack in this slot.
func (h *Holder) Holds(id group.ID, number uint16, slot uint8) bool {
	g, ok := h.Store.Holding(id)
	return ok && g.Slot == slot && g.Held.Has(number)
}

// call is one exchange: it waits as long as the holder does, and wraps what fn
// ends with as net/client does.
func (s *Set) call(ctx context.Context, p group.PeerKey, k wire.Kind, size int, fn func(*Holder, Behaviour) error) error {
	err := s.exchange(ctx, p, k, size, fn)
	if err != nil {
		return &client.Error{Op: k, Peer: p, Err: err}
	}
	return nil
}

func (s *Set) exchange(ctx context.Context, p group.PeerKey, k wire.Kind, size int, fn func(*Holder, Behaviour) error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s.mu.Lock()
	h := s.all[p]
	if h == nil {
		s.mu.Unlock()
		return fmt.Errorf("%w: nobody has this key", client.ErrUnreachable)
	}
	how := h.how
	h.calls[k]++
	h.bytes[k] += int64(size)
	s.mu.Unlock()
	client.Sent(ctx)
	switch {
	case how.Away:
		return client.ErrUnreachable
	case how.Silent, how.Mute && k == wire.KindProve:
		if err := wait(ctx, Stall); err != nil {
			return err
		}
		return client.ErrUnreachable
	case how.Delay > 0:
		if err := wait(ctx, how.Delay); err != nil {
			return err
		}
	}
	if how.Busy {
		return client.ErrBusy
	}
	err := judged(fn(h, how))
	if how.Lag > 0 {
		if late := wait(ctx, how.Lag); late != nil {
			return late
		}
	}
	return err
}

func wait(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// judged turns the errors of stores and proofs into those of net/client.
func judged(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return client.ErrAbsent
	case errors.Is(err, syscall.ENOSPC):
		return client.ErrFull
	case errors.Is(err, group.ErrInvalid):
		return &client.RefusedError{Reason: err.Error()}
	case errors.Is(err, erasure.ErrProof):
		return fmt.Errorf("%w: %w", client.ErrLied, err)
	}
	return err
}

// Admit implements the call of net/client.
func (s *Set) Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (st group.Statement, err error) {
	l, err := group.ParseLease(lease)
	if err != nil {
		return st, err
	}
	err = s.call(ctx, p, wire.KindAdmit, 0, func(h *Holder, how Behaviour) error {
		if how.Unwilled {
			return &client.RefusedError{Reason: "no slot for strangers"}
		}
		g, err := h.Store.Admit(l, lease, slot, group.PeerKey{})
		st = h.statement(g)
		return err
	})
	return st, err
}

func (h *Holder) statement(g group.Holding) group.Statement {
	return group.Statement{Holder: h.Key, Group: g.ID, Slot: g.Slot, Held: g.Held, Lease: g.Lease.Number}
}

// Statement implements the call of net/client.
func (s *Set) Statement(ctx context.Context, p group.PeerKey, id group.ID) (st group.Statement, err error) {
	err = s.call(ctx, p, wire.KindStatement, 0, func(h *Holder, _ Behaviour) error {
		g, ok := h.Store.Holding(id)
		if !ok {
			return fs.ErrNotExist
		}
		st = h.statement(g)
		return nil
	})
	return st, err
}

// Release implements the call of net/client.
func (s *Set) Release(ctx context.Context, p group.PeerKey, release []byte) (st group.Statement, err error) {
	r, err := group.ParseRelease(release)
	if err != nil {
		return st, err
	}
	err = s.call(ctx, p, wire.KindRelease, 0, func(h *Holder, _ Behaviour) error {
		if r.Holder != h.Key {
			return group.ErrInvalid
		}
		g, err := h.Store.Release(r)
		st = h.statement(g)
		return err
	})
	return st, err
}

// Put implements the call of net/client. A holder without a lease refuses.
func (s *Set) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	m, err := group.ParseManifest(manifest)
	if err != nil {
		return err
	}
	return s.call(ctx, p, wire.KindPut, len(shard), func(h *Holder, how Behaviour) error {
		if _, ok := h.Store.Holding(m.Group); !ok {
			return &client.RefusedError{Reason: "no lease"}
		}
		if how.Full {
			return client.ErrFull
		}
		return h.Store.PutShard(&m, manifest, slot, bytes.NewReader(shard))
	})
}

// Get implements the call of net/client.
func (s *Set) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	from, to := wire.Align(m.ShardSize(), off, n)
	dst := make([]byte, to-from)
	err := s.call(ctx, p, wire.KindGet, n, func(h *Holder, how Behaviour) error {
		if !h.Holds(m.Group, m.Number, slot) {
			return fs.ErrNotExist
		}
		var sent bytes.Buffer
		if err := h.Store.WriteSlice(&sent, m.Group, m.Number, from, to-from); err != nil {
			return err
		}
		how.spoil(&sent)
		return erasure.ReadSlice(&sent, dst, m.ShardSize(), from, m.Roots[slot])
	})
	if err != nil {
		return nil, err
	}
	return dst[off-from:][:n:n], nil
}

// GetBare implements the call of net/client.
func (s *Set) GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, _ func(int) []byte) ([]byte, error) {
	from, to := wire.Align(m.ShardSize(), off, n)
	var sent bytes.Buffer
	err := s.call(ctx, p, wire.KindGet, n, func(h *Holder, how Behaviour) error {
		if !h.Holds(m.Group, m.Number, slot) {
			return fs.ErrNotExist
		}
		defer how.spoil(&sent)
		return h.Store.WriteRange(&sent, m.Group, m.Number, from, to-from)
	})
	if err != nil {
		return nil, err
	}
	return sent.Bytes()[off-from:][:n:n], nil
}

// spoil flips a bit of what a liar sends.
func (b Behaviour) spoil(sent *bytes.Buffer) {
	if b.Flips && sent.Len() > 0 {
		sent.Bytes()[sent.Len()/2] ^= 1
	}
}

// Prove implements the call of net/client.
func (s *Set) Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	return s.call(ctx, p, wire.KindProve, 0, func(h *Holder, how Behaviour) error {
		if !h.Holds(m.Group, m.Number, slot) {
			return fs.ErrNotExist
		}
		var sent bytes.Buffer
		if err := h.Store.WriteSamples(&sent, m.Group, m.Number, nonce, count); err != nil {
			return err
		}
		how.spoil(&sent)
		return erasure.ReadSamples(&sent, nonce, m.ShardSize(), m.Roots[slot], count)
	})
}

// Manifests implements the call of net/client.
func (s *Set) Manifests(ctx context.Context, p group.PeerKey, id group.ID, wanted group.Bitmap) (map[uint16][]byte, error) {
	out := map[uint16][]byte{}
	err := s.call(ctx, p, wire.KindManifests, 0, func(h *Holder, _ Behaviour) error {
		g, ok := h.Store.Holding(id)
		if !ok {
			return fs.ErrNotExist
		}
		for n := range uint16(group.MaxPacks) {
			if g.Held.Has(n) && wanted.Has(n) {
				word, err := h.Store.Manifest(id, n)
				if err != nil {
					return err
				}
				out[n] = word
			}
		}
		return nil
	})
	return out, err
}

// EachHolder names those who have a lease of a group, as net/dht does; who is
// away may be among them.
func (s *Set) EachHolder(ctx context.Context, id group.ID, limit int, fn func(group.PeerKey)) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, h := range s.List() {
		if _, ok := h.Store.Holding(id); ok && limit > 0 {
			fn(h.Key)
			limit--
		}
	}
	return nil
}
