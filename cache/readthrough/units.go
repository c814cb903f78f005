package readthrough

import (
	"container/list"
	"context"
	"sync"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

const (
	// unitMemory bounds what is kept of ranges that were fetched.
	unitMemory = 24 << 20
	// maxAhead is how many units are fetched at once for a reader that goes
	// through a pack in order.
	maxAhead = 32
)

// unitCache keeps units of packs that were read, so that small blocks which lie
// together are fetched together.
type unitCache struct {
	mu     sync.Mutex // guards all below
	lru    *list.List // of *unit, newest first
	byKey  map[unitKey]*list.Element
	size   int
	flying map[unitKey]chan struct{} // closed when the fetch ended
	ahead  map[packKey]run
}

type packKey struct {
	group  group.ID
	number uint16
}

type unitKey struct {
	packKey
	index int
}

type unit struct {
	key unitKey
	b   []byte
}

// run is how a pack was read last: where the last fetch ended, and how many
// units it had.
type run struct{ end, n int }

func newUnitCache() *unitCache {
	return &unitCache{lru: list.New(), byKey: map[unitKey]*list.Element{},
		flying: map[unitKey]chan struct{}{}, ahead: map[packKey]run{}}
}

// read returns n bytes at off of a pack.
func (u *unitCache) read(ctx context.Context, src Source, ref group.PackRef, off, n int) ([]byte, error) {
	pk := packKey{ref.Group, ref.Number}
	first, last := off/erasure.Unit, (off+n-1)/erasure.Unit
	if n == 0 {
		return nil, nil
	}
	out := make([]byte, n)
	for i := first; i <= last; {
		b, from, err := u.get(ctx, src, ref, unitKey{pk, i}, last)
		if err != nil {
			return nil, err
		}
		// b begins at offset from of the pack; copy what is wanted of it.
		lo := max(off, from)
		copied := copy(out[lo-off:], b[lo-from:])
		i = (lo+copied-1)/erasure.Unit + 1
	}
	return out, nil
}

// get returns bytes that begin with unit k or before, up to unit last at most,
// and the offset in the pack where they begin.
func (u *unitCache) get(ctx context.Context, src Source, ref group.PackRef, k unitKey, last int) ([]byte, int, error) {
	for {
		u.mu.Lock()
		if e, ok := u.byKey[k]; ok {
			u.lru.MoveToFront(e)
			b := e.Value.(*unit).b
			u.mu.Unlock()
			return b, k.index * erasure.Unit, nil
		}
		wait, flying := u.flying[k]
		if !flying {
			break
		}
		u.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, 0, ctx.Err()
		}
	}
	n := u.plan(ref, k, last)
	done := make(chan struct{})
	for i := range n {
		u.flying[unitKey{k.packKey, k.index + i}] = done
	}
	u.mu.Unlock()

	off := k.index * erasure.Unit
	b, err := src.ReadRange(ctx, ref, off, min(n*erasure.Unit, ref.Class.Size()-off))

	u.mu.Lock()
	defer u.mu.Unlock()
	for i := range n {
		delete(u.flying, unitKey{k.packKey, k.index + i})
	}
	close(done)
	if err != nil {
		return nil, 0, err
	}
	u.keep(k, b)
	return b, off, nil
}

// plan says how many units to fetch from k on: as many as are wanted and not
// here, more for a reader that goes through the pack in order. u.mu is held.
func (u *unitCache) plan(ref group.PackRef, k unitKey, last int) int {
	n := last - k.index + 1
	prev := u.ahead[k.packKey]
	if prev.n > 0 && k.index == prev.end {
		n = max(n, min(2*prev.n, maxAhead))
	}
	n = min(n, (ref.Class.Size()+erasure.Unit-1)/erasure.Unit-k.index)
	for i := 1; i < n; i++ {
		next := unitKey{k.packKey, k.index + i}
		_, here := u.byKey[next]
		_, flying := u.flying[next]
		if here || flying {
			n = i
		}
	}
	if len(u.ahead) > 1024 {
		clear(u.ahead)
	}
	u.ahead[k.packKey] = run{end: k.index + n, n: n}
	return n
}

// keep puts fetched units into memory. u.mu is held.
func (u *unitCache) keep(k unitKey, b []byte) {
	n := (len(b) + erasure.Unit - 1) / erasure.Unit
	for i := range n {
		part := b[i*erasure.Unit : min((i+1)*erasure.Unit, len(b))]
		key := unitKey{k.packKey, k.index + i}
		if _, ok := u.byKey[key]; ok {
			continue
		}
		u.byKey[key] = u.lru.PushFront(&unit{key, part})
		u.size += len(part)
	}
	for u.size > unitMemory {
		e := u.lru.Back()
		old := u.lru.Remove(e).(*unit)
		delete(u.byKey, old.key)
		u.size -= len(old.b)
	}
}
