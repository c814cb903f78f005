package dht

import (
	"context"
	"sync"

	"github.com/ipfs/go-datastore"
	"github.com/ipfs/go-datastore/query"
)

// entryCost is what an entry takes in memory beside its key and value.
const entryCost = 128

// bounded is a datastore in memory that holds so many bytes at most. When it is
// full, a new entry takes the place of old ones picked at random: somebody who
// floods it cannot keep others out, and what is put again comes back.
type bounded struct {
	limit int

	mu   sync.Mutex // guards the fields below
	m    map[datastore.Key][]byte
	used int
}

var _ datastore.Batching = (*bounded)(nil)

func newBounded(limit int) *bounded {
	return &bounded{limit: limit, m: map[datastore.Key][]byte{}}
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
	for old := range b.m { // in random order
		if b.used+need <= b.limit {
			break
		}
		b.remove(old)
	}
	b.m[k] = v
	b.used += need
	return nil
}

func (b *bounded) remove(k datastore.Key) {
	if v, ok := b.m[k]; ok {
		b.used -= cost(k, v)
		delete(b.m, k)
	}
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
	all := make([]query.Entry, 0, len(b.m))
	for k, v := range b.m {
		e := query.Entry{Key: k.String(), Size: len(v)}
		if !q.KeysOnly {
			e.Value = v
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
