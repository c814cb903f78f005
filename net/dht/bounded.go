package dht

import (
	"context"
	"iter"
	"maps"
	"math/rand/v2"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// entryCost is what an entry takes in memory beside its key and value, about.
const entryCost = 256

// bounded is a datastore in memory that holds so many bytes at most. When it is
// full, a new entry takes the place of old ones: of some picked about at random,
// that whose owner takes most room. So who floods it drives out his own entries
// first, cannot keep others out, and what is put again comes back.
type bounded struct {
	limit int
	owner func(datastore.Key) string

	mu   sync.Mutex // guards the fields below
	m    map[datastore.Key][]byte
	near map[string][]datastore.Key // the keys of m, by what they begin with
	used int
	of   map[string]int // bytes of each owner
}

var _ datastore.Batching = (*bounded)(nil)

// newBounded returns an empty datastore for so many bytes. owner says to whom
// the room for an entry is counted.
func newBounded(limit int, owner func(datastore.Key) string) *bounded {
	return &bounded{limit: limit, owner: owner, m: map[datastore.Key][]byte{}, near: map[string][]datastore.Key{}, of: map[string]int{}}
}

// provider is the owner of a provider record, the peer that says to hold
// something: the last part of the key.
func provider(k datastore.Key) string { return k.Name() }

// ownerless lets each entry count for itself, the large ones most. Nobody can
// tell who put a value.
func ownerless(k datastore.Key) string { return k.String() }

// beginning is the first two parts of a key, such as /providers and whose they are: what
// is asked for mostly lies below one, and whoever asks must not have all looked through.
// It is the whole key where that has no more.
func beginning(key string) string {
	second := strings.IndexByte(key[1:], '/') + 1
	if third := strings.IndexByte(key[second+1:], '/'); second > 0 && third >= 0 {
		return key[:second+1+third]
	}
	return key
}

// mostBelow is how many entries below a name a query returns: an answer has room for them
// all, and for some that are not here yet.
const mostBelow = 400

// below are the keys among which all are that lie below a path, or mostBelow of them, not
// always the same: whoever asks asks several peers. The caller holds mu.
func (b *bounded) below(at string) iter.Seq[datastore.Key] {
	if strings.Count(at, "/") < 2 {
		return maps.Keys(b.m)
	}
	near := b.near[beginning(at)]
	if len(near) <= mostBelow {
		return slices.Values(near)
	}
	first := rand.IntN(len(near))
	return func(yield func(datastore.Key) bool) {
		for i := range mostBelow {
			if !yield(near[(first+i)%len(near)]) {
				return
			}
		}
	}
}

// The one that goes is chosen among so many entries, and among more when all of
// these are of owners that take less than the average.
const (
	candidates     = 8
	mostCandidates = 256
)

// worst is the key of an entry that is to go. There is at least one.
func (b *bounded) worst() (worst datastore.Key) {
	average := b.used / len(b.of)
	most, seen := -1, 0
	for k := range b.m { // in random order
		if n := b.of[b.owner(k)]; n > most {
			worst, most = k, n
		}
		if seen++; seen >= mostCandidates || seen >= candidates && most >= average {
			break
		}
	}
	return worst
}

func cost(k datastore.Key, v []byte) int { return entryCost + len(k.String()) + len(v) }

// Put implements datastore.Write. An entry larger than the limit is not kept.
func (b *bounded) Put(_ context.Context, k datastore.Key, v []byte) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(k)
	need := cost(k, v)
	if need > b.limit {
		return nil
	}
	for b.used+need > b.limit {
		b.remove(b.worst())
	}
	b.m[k] = v
	at := beginning(k.String())
	b.near[at] = append(b.near[at], k)
	b.used += need
	b.of[b.owner(k)] += need
	return nil
}

func (b *bounded) remove(k datastore.Key) {
	v, ok := b.m[k]
	if !ok {
		return
	}
	b.used -= cost(k, v)
	delete(b.m, k)
	b.removeNear(k)
	o := b.owner(k)
	if b.of[o] -= cost(k, v); b.of[o] == 0 {
		delete(b.of, o)
	}
}

func (b *bounded) removeNear(k datastore.Key) {
	at := beginning(k.String())
	near := b.near[at]
	if len(near) == 1 {
		delete(b.near, at)
		return
	}
	i := slices.Index(near, k)
	near[i] = near[len(near)-1]
	near[len(near)-1] = datastore.Key{}
	b.near[at] = near[:len(near)-1]
}

// Delete implements datastore.Write.
func (b *bounded) Delete(_ context.Context, k datastore.Key) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remove(k)
	return nil
}

// Get implements datastore.Read.
func (b *bounded) Get(_ context.Context, k datastore.Key) ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	v, ok := b.m[k]
	if !ok {
		return nil, datastore.ErrNotFound
	}
	return v, nil
}

// Has implements datastore.Read.
func (b *bounded) Has(_ context.Context, k datastore.Key) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.m[k]
	return ok, nil
}

// GetSize implements datastore.Read.
func (b *bounded) GetSize(ctx context.Context, k datastore.Key) (int, error) {
	v, err := b.Get(ctx, k)
	if err != nil {
		return -1, err
	}
	return len(v), nil
}

// Query implements datastore.Read.
func (b *bounded) Query(_ context.Context, q query.Query) (query.Results, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var all []query.Entry // of all others nothing is copied: anybody may ask, again and again
	below := path.Clean("/" + q.Prefix)
	for k := range b.below(below) {
		if !strings.HasPrefix(k.String(), below) {
			continue
		}
		e := query.Entry{Key: k.String(), Size: len(b.m[k])}
		if !q.KeysOnly {
			e.Value = b.m[k]
		}
		all = append(all, e)
	}
	return query.NaiveQueryApply(q, query.ResultsWithEntries(q, all)), nil
}

// Batch implements datastore.BatchingFeature.
func (b *bounded) Batch(context.Context) (datastore.Batch, error) {
	return datastore.NewBasicBatch(b), nil
}

// Sync implements datastore.Datastore; there is nothing to do.
func (b *bounded) Sync(context.Context, datastore.Key) error { return nil }

// Close implements datastore.Datastore.
func (b *bounded) Close() error { return nil }
