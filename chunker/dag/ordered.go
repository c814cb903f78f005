package dag

import (
	"context"
	"sync"
)

// readAhead is how many blocks of a directory are asked for at a time.
const readAhead = 16

// semaphore bounds how many blocks are asked for at a time.
type semaphore chan struct{}

func newSemaphore() semaphore { return make(semaphore, readAhead) }

// fetcher fetches some of n things ahead of their use.
type fetcher[T any] struct {
	sem   semaphore
	n     int
	needs func(i int) bool // whether thing i must be fetched
	fetch func(ctx context.Context, i int) (T, error)
	use   func(i int, v T) error // with the zero T where nothing was fetched
}

// result is what a fetch returned.
type result[T any] struct {
	v   T
	err error
}

// run calls use for 0 to n-1, in order and on the caller's goroutine, while fetch
// runs ahead on others for up to readAhead things, as far as sem admits. The first
// error ends it. No goroutine outlives the call.
func (f *fetcher[T]) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var pending []chan result[T] // a queue: the next to use is first
	ahead := 0
	for i := range f.n {
		for ; ahead < f.n && len(pending) < readAhead; ahead++ {
			if f.needs(ahead) {
				pending = append(pending, f.start(ctx, &wg, ahead))
			}
		}
		var r result[T]
		if f.needs(i) {
			r = <-pending[0]
			pending = pending[1:]
		}
		if r.err != nil {
			return r.err
		}
		if err := f.use(i, r.v); err != nil {
			return err
		}
	}
	return nil
}

// start fetches thing i on a goroutine of its own.
func (f *fetcher[T]) start(ctx context.Context, wg *sync.WaitGroup, i int) chan result[T] {
	ch := make(chan result[T], 1)
	wg.Go(func() {
		select {
		case f.sem <- struct{}{}:
		case <-ctx.Done():
			ch <- result[T]{err: ctx.Err()}
			return
		}
		defer func() { <-f.sem }()
		v, err := f.fetch(ctx, i)
		ch <- result[T]{v, err}
	})
	return ch
}
