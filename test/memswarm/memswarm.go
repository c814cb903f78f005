package memswarm

import (
	"bytes"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"skep/cache/readerr"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Swarm is a set of holders. It satisfies writeback.Sink and
// readthrough.Source.
type Swarm struct {
	K, N int              // coding of classes that allow it; once it is used, Recode changes them
	Now  func() time.Time // by which leases end; nil: they do not

	mu      sync.Mutex // guards all below
	holders []*Holder
	heads   []commit.Head
	reads   int
	fetched int64
	stored  int64
}

// Holder is one peer of the swarm; its fields are guarded by the swarm.
type Holder struct {
	Key   group.PeerKey
	Down  bool // does not answer
	Lying bool // flips a bit in what it gives

	shards map[shardKey][]byte
	leases map[group.ID]group.Holding // Slot aside
}

type shardKey struct {
	group  group.ID
	number uint16
	slot   int
}

// New returns a swarm of peers that codes k of n where the class allows it.
func New(peers, k, n int) *Swarm {
	s := &Swarm{K: k, N: n}
	for i := range peers {
		s.holders = append(s.holders, &Holder{Key: group.PeerKey{byte(i + 1), 0xaa},
			shards: map[shardKey][]byte{}, leases: map[group.ID]group.Holding{}})
	}
	return s
}

// Clone returns a swarm that is as this one is now.
func (s *Swarm) Clone() *Swarm {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := &Swarm{K: s.K, N: s.N, heads: slices.Clone(s.heads), reads: s.reads, fetched: s.fetched, stored: s.stored}
	for _, h := range s.holders {
		out.holders = append(out.holders, &Holder{Key: h.Key, Down: h.Down, Lying: h.Lying,
			shards: maps.Clone(h.shards), leases: maps.Clone(h.leases)})
	}
	return out
}

// Packs are the packs of which any holder has a shard.
func (s *Swarm) Packs() []group.PackRef {
	s.mu.Lock()
	defer s.mu.Unlock()
	seen := map[shardKey]bool{}
	var out []group.PackRef
	for _, h := range s.holders {
		for k := range h.shards {
			k.slot = 0
			if !seen[k] {
				seen[k] = true
				out = append(out, group.PackRef{Group: k.group, Number: k.number})
			}
		}
	}
	return out
}

// Published is how many heads were.
func (s *Swarm) Published() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.heads)
}

// Set changes holder i.
func (s *Swarm) Set(i int, fn func(*Holder)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(s.holders[i])
}

// Wipe empties holder i.
func (s *Swarm) Wipe(i int) {
	s.Set(i, func(h *Holder) { clear(h.shards) })
}

// Lose takes the shards of packs away from all holders.
func (s *Swarm) Lose(packs func(group.PackRef) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holders {
		maps.DeleteFunc(h.shards, func(k shardKey, _ []byte) bool {
			return packs(group.PackRef{Group: k.group, Number: k.number})
		})
	}
}

// Bytes is how much all holders hold, and how many shards.
func (s *Swarm) Bytes() (n int64, shards int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holders {
		for _, b := range h.shards {
			n += int64(len(b))
			shards++
		}
	}
	return n, shards
}

// Collect deletes the shards of groups whose leases have ended three days ago
// or before, as holders do.
func (s *Swarm) Collect() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holders {
		for key := range h.shards {
			if s.Now().Unix() >= h.leases[key.group].Last+3*24*3600 {
				delete(h.shards, key)
			}
		}
	}
}

// Contains reports whether any holder has these bytes in any shard.
func (s *Swarm) Contains(p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.holders {
		for _, b := range h.shards {
			if bytes.Contains(b, p) {
				return true
			}
		}
	}
	return false
}

// Reads is how many ranges were read so far.
func (s *Swarm) Reads() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reads
}

// Fetched is how many bytes were read so far.
func (s *Swarm) Fetched() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fetched
}

// Stored is how many bytes of shards were taken so far.
func (s *Swarm) Stored() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stored
}

// Plan implements writeback.Sink.
func (s *Swarm) Plan(_ context.Context, class erasure.Class, _ group.Kind) (erasure.Coding, []group.PeerKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	k := min(s.K, class.MaxK())
	n := k + s.N - s.K
	var slots []group.PeerKey
	for _, h := range s.holders {
		if !h.Down && len(slots) < n {
			slots = append(slots, h.Key)
		}
	}
	if len(slots) < n {
		return erasure.Coding{}, nil, fmt.Errorf("%w: %d of %d", writeback.ErrTooFew, len(slots), n)
	}
	return erasure.NewCoding(k, n), slots, nil
}

// Recode has new groups be coded k of n from now on.
func (s *Swarm) Recode(k, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.K, s.N = k, n
}

// Weak reports whether a coding survives fewer losses than those of new groups, as
// long as there are holders for these. It is a writeback.Config's.
func (s *Swarm) Weak(class erasure.Class, kind group.Kind, c erasure.Coding) bool {
	best, _, err := s.Plan(context.Background(), class, kind)
	return err == nil && c.N-c.K < best.N-best.K
}

// There is how many of a group's holders answer. It is a writeback.Config's.
func (s *Swarm) There(g group.Group) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range g.Slots {
		if h := s.holder(k); h != nil && !h.Down {
			n++
		}
	}
	return n
}

func (s *Swarm) holder(k group.PeerKey) *Holder {
	for _, h := range s.holders {
		if h.Key == k {
			return h
		}
	}
	return nil
}

// now is the time of the holders; where leases do not end, one at which this one
// is good.
func (s *Swarm) now(l group.Lease) int64 {
	if s.Now == nil {
		return l.Until - 1
	}
	return s.Now().Unix()
}

// Groups is how many groups of which there may come more a holder keeps account of,
// and how many that are over.
func (s *Swarm) Groups(holder int) (held, over int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, g := range s.holders[holder].leases {
		if g.Over() {
			over++
		} else {
			held++
		}
	}
	return held, over
}

// there are the holders of slots that are not down. Caller holds mu.
func (s *Swarm) there(slots []group.PeerKey) iter.Seq2[int, *Holder] {
	return func(yield func(int, *Holder) bool) {
		for i, k := range slots {
			if h := s.holder(k); h != nil && !h.Down && !yield(i, h) {
				return
			}
		}
	}
}

// Lease implements writeback.Sink: shards of packs that it calls dead are
// deleted. Like a holder, it takes none that has ended, nor one that ends in more
// than 800 days.
func (s *Swarm) Lease(_ context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	l, err := group.ParseLease(lease)
	if err != nil {
		return group.SlotSet{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out group.SlotSet
	for i, h := range s.there(g.Slots) {
		if now := s.now(l); now >= l.Until || l.Until > now+800*24*3600 {
			continue
		}
		h.leases[l.Group] = h.leases[l.Group].Merge(l, lease)
		for key := range h.shards {
			if key.group == l.Group && l.Dead.Has(key.number) {
				delete(h.shards, key)
			}
		}
		out.Add(i)
	}
	return out, nil
}

// Store implements writeback.Sink.
func (s *Swarm) Store(_ context.Context, g group.Group, _, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	m, err := group.ParseManifest(manifest)
	if err != nil {
		return group.SlotSet{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out group.SlotSet
	for i, h := range s.there(g.Slots) {
		key := shardKey{m.Group, m.Number, i}
		if old, ok := h.shards[key]; ok && !bytes.Equal(old, shards[i]) {
			return out, fmt.Errorf("pack %d of group %v twice", m.Number, m.Group)
		}
		if erasure.RootOf(shards[i]) != m.Roots[i] {
			return out, fmt.Errorf("shard %d does not have its root", i)
		}
		if l, ok := h.leases[m.Group]; !ok || s.Now != nil && s.Now().Unix() >= l.Last {
			return out, fmt.Errorf("group %v has no lease", m.Group)
		} else if l.Dead.Has(m.Number) {
			return out, fmt.Errorf("pack %d of group %v is dead", m.Number, m.Group)
		}
		h.shards[key] = bytes.Clone(shards[i])
		s.stored += int64(len(shards[i]))
		out.Add(i)
	}
	if need := int(g.Coding.K) + (int(g.Coding.N-g.Coding.K)+1)/2; out.Count() < need {
		return out, fmt.Errorf("%w: %d of %d", writeback.ErrTooFew, out.Count(), need)
	}
	return out, nil
}

// Publish is a writeback.Publisher.
func (s *Swarm) Publish(_ context.Context, h commit.Head) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heads = append(s.heads, h)
	return nil
}

// Head is the newest head that was published.
func (s *Swarm) Head() commit.Head {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.heads[len(s.heads)-1]
}

// ReadKnown implements readthrough.Source.
func (s *Swarm) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, _ func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	b, err := s.ReadRange(ctx, ref, off, n)
	return b, err == nil && fits(b), err
}

// ReadRange implements readthrough.Source, from any k holders.
func (s *Swarm) ReadRange(_ context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	s.fetched += int64(n)
	shards := make([][]byte, ref.Coding.N)
	want := make([]bool, ref.Coding.N)
	have := 0
	for i := range shards {
		want[i] = i < int(ref.Coding.K)
		for _, h := range s.holders {
			b, ok := h.shards[shardKey{ref.Group, ref.Number, i}]
			if !ok || h.Down || h.Lying || have == int(ref.Coding.K) {
				continue
			}
			shards[i] = bytes.Clone(b)
			have++
			break
		}
	}
	if err := ref.Coding.Reconstruct(shards, want); err != nil {
		return nil, fmt.Errorf("%w: %w", readerr.ErrLost, err)
	}
	pack := bytes.Join(shards[:ref.Coding.K], nil)
	return bytes.Clone(pack[off : off+n]), nil
}
