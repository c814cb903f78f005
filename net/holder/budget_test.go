package holder_test

import (
	"io"
	"sync"
	"testing"

	"skep/chunker/group"
	"skep/net/holder"
	"skep/test/simnet"
	"skep/test/storetest"
)

// between is a store that lets something happen once, right after a group was looked
// at, or right after a shard was stored.
type between struct {
	*storetest.Memory
	mu             sync.Mutex // guards both
	looked, stored func()
}

func newBetween(int) holder.Store { return &between{Memory: storetest.NewMemory(1 << 30)} }

// once runs what is to happen, the first time.
func (s *between) once(what *func()) {
	s.mu.Lock()
	do := *what
	*what = nil
	s.mu.Unlock()
	if do != nil {
		do()
	}
}

func (s *between) Holding(id group.ID) (group.Holding, bool) {
	g, ok := s.Memory.Holding(id)
	s.once(&s.looked)
	return g, ok
}

func (s *between) PutShard(m *group.Manifest, word []byte, slot uint8, shard io.Reader) error {
	err := s.Memory.PutShard(m, word, slot, shard)
	s.once(&s.stored)
	return err
}

// A shard that comes while another one is looked at counts against the budget, once.
func TestBudgetOfShardsThatComeTogether(t *testing.T) {
	const shard = 128 << 10
	for name, c := range map[string]struct {
		shards  int
		when    func(*between, func())
		refused bool
	}{
		"one too many, after the look":  {1, func(s *between, do func()) { s.looked = do }, true},
		"both fit, after the look":      {2, func(s *between, do func()) { s.looked = do }, false},
		"both fit, one is not told yet": {2, func(s *between, do func()) { s.stored = do }, false},
	} {
		t.Run(name, func(t *testing.T) {
			hold, ask, o := pair(t, simnet.Config{Store: newBetween}, func(l *group.Lease) { l.Bytes = int64(c.shards) * shard })
			first, second := o.Pack(t, 0), o.Pack(t, 1)
			c.when(hold.Store.(*between), func() {
				if err := put(t, ask, hold, second, 1); err != nil {
					t.Error(err)
				}
			})
			if err := put(t, ask, hold, first, 1); refusedFor(err, "budget") != c.refused || !c.refused && err != nil {
				t.Error(err)
			}
			if g, _ := hold.Store.Holding(o.ID); g.Held.Count() != c.shards {
				t.Errorf("%d shards are held, the lease is for %d", g.Held.Count(), c.shards)
			}
		})
	}
}
