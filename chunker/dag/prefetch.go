package dag

import (
	"context"
	"sync"

	"skep/chunker/link"
)

// A directory is read in order, but its blocks may be far away. So while one shard
// is used, the blocks of the next ones are fetched, and as soon as one of these is
// there, the blocks below it.

const (
	// readAhead is how many blocks of a directory are asked for at a time, and how
	// many the shard in use may have waiting.
	readAhead = 16
	// maxWaiting bounds how many blocks wait for their use below shards that are
	// not in use yet themselves.
	maxWaiting = 64
)

// prefetcher bounds the fetches of one operation on a directory.
type prefetcher struct {
	gets    chan struct{} // held by each Get under way
	waiting chan struct{} // held by what was fetched below shards not yet in use
	wg      sync.WaitGroup
}

func newPrefetcher() *prefetcher {
	return &prefetcher{gets: make(chan struct{}, readAhead), waiting: make(chan struct{}, maxWaiting)}
}

// within calls fn with a context that ends with it, and waits for all fetches, so
// that no goroutine outlives the operation.
func (p *prefetcher) within(ctx context.Context, fn func(ctx context.Context) error) error {
	defer p.wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	return fn(ctx)
}

// queue fetches what some of n slots need, ahead of their use in order. Its methods
// must not be called concurrently.
type queue[T any] struct {
	p     *prefetcher
	n     int
	needs func(i int) bool // whether slot i must be fetched
	fetch func(ctx context.Context, i int) (T, error)

	next    int          // no slot from here on was started
	pending []request[T] // started and not taken yet, in order
}

// request is a fetch under way.
type request[T any] struct {
	done  chan result[T]
	waits bool // it holds a place in prefetcher.waiting
}

type result[T any] struct {
	v   T
	err error
}

// begin starts fetches for a shard that is not in use yet, as far as there is room.
func (q *queue[T]) begin(ctx context.Context) {
	q.fill(ctx, func() bool {
		select {
		case q.p.waiting <- struct{}{}:
			return true
		default:
			return false
		}
	}, true)
}

// take returns what slot i needs, the zero T if that is nothing. Slots must be taken
// in order.
func (q *queue[T]) take(ctx context.Context, i int) (T, error) {
	var r result[T]
	q.fill(ctx, func() bool { return true }, false)
	if q.needs(i) {
		first := q.pending[0]
		q.pending = q.pending[1:]
		r = <-first.done
		if first.waits {
			<-q.p.waiting
		}
	}
	return r.v, r.err
}

// fill starts fetches up to readAhead, while admit lets it.
func (q *queue[T]) fill(ctx context.Context, admit func() bool, waits bool) {
	for ; q.next < q.n && len(q.pending) < readAhead; q.next++ {
		if !q.needs(q.next) {
			continue
		}
		if !admit() {
			return
		}
		q.pending = append(q.pending, request[T]{q.start(ctx, q.next), waits})
	}
}

// start fetches slot i on a goroutine of its own.
func (q *queue[T]) start(ctx context.Context, i int) chan result[T] {
	done := make(chan result[T], 1)
	q.p.wg.Go(func() {
		v, err := q.fetch(ctx, i)
		done <- result[T]{v, err}
	})
	return done
}

// boundedGetter is a Getter that admits readAhead Gets at a time.
type boundedGetter struct {
	g    Getter
	gets chan struct{}
}

func (p *prefetcher) bound(g Getter) Getter { return boundedGetter{g, p.gets} }

func (b boundedGetter) Get(ctx context.Context, l link.Link) ([]byte, error) {
	select {
	case b.gets <- struct{}{}:
		defer func() { <-b.gets }()
		return b.g.Get(ctx, l)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
