package repeat

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// workers is how many keys are worked on at once.
	workers = 4
	// firstRetry is how soon a key that failed is tried again; the wait doubles
	// with each failure, up to lastRetry, or an eighth of the interval if that is less.
	firstRetry = 15 * time.Second
	lastRetry  = 10 * time.Minute
)

// A Set does its work for each key that was added and not yet removed. It is
// safe for concurrent use.
type Set[K comparable] struct {
	do       func(context.Context, K) error
	interval time.Duration
	cancel   context.CancelFunc
	wg       sync.WaitGroup
	wake     chan struct{} // of one: something may be due

	mu    sync.Mutex // guards the fields below
	keys  map[K]*entry[K]
	queue queue[K]      // entries that nobody works on
	fresh int           // keys not yet done once
	idle  chan struct{} // closed while fresh is 0
}

type entry[K comparable] struct {
	key     K
	at      int // in the queue; -1 while somebody works on it
	due     time.Time
	retry   time.Duration
	done    bool // at least once
	removed bool
}

// New starts a set whose work is do, which must end when its context does. The
// caller closes the set.
func New[K comparable](interval time.Duration, do func(context.Context, K) error) *Set[K] {
	ctx, cancel := context.WithCancel(context.Background())
	s := &Set[K]{
		do: do, interval: interval, cancel: cancel, wake: make(chan struct{}, 1),
		keys: map[K]*entry[K]{}, idle: make(chan struct{}),
	}
	close(s.idle)
	for range workers {
		s.wg.Go(func() { s.run(ctx) })
	}
	return s
}

// Close ends the work and waits for what is under way.
func (s *Set[K]) Close() {
	s.cancel()
	s.wg.Wait()
}

// Add puts keys into the set, due after a random part of spread. Those that are
// in it already stay as they are.
func (s *Set[K]) Add(spread time.Duration, keys ...K) {
	now := time.Now()
	s.mu.Lock()
	for _, k := range keys {
		if _, ok := s.keys[k]; ok {
			continue
		}
		e := &entry[K]{key: k, due: now.Add(rand.N(spread + 1)), retry: s.firstRetry()}
		s.keys[k] = e
		heap.Push(&s.queue, e)
		if s.fresh++; s.fresh == 1 {
			s.idle = make(chan struct{})
		}
	}
	s.mu.Unlock()
	s.nudge()
}

// Remove takes keys out of the set. Work under way on them goes on to its end.
func (s *Set[K]) Remove(keys ...K) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if e, ok := s.keys[k]; ok {
			e.removed = true
			delete(s.keys, k)
			if e.at >= 0 {
				heap.Remove(&s.queue, e.at)
			}
			s.settle(e)
		}
	}
}

// Wait returns when every key was done at least once, or with the error of
// ctx.
func (s *Set[K]) Wait(ctx context.Context) error {
	s.mu.Lock()
	idle := s.idle
	s.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Set[K]) firstRetry() time.Duration { return min(firstRetry, s.interval/8+1) }

// settle counts a key as done, or no longer wanted.
func (s *Set[K]) settle(e *entry[K]) {
	if e.done {
		return
	}
	e.done = true
	if s.fresh--; s.fresh == 0 {
		close(s.idle)
	}
}

func (s *Set[K]) nudge() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *Set[K]) run(ctx context.Context) {
	for ctx.Err() == nil {
		e, wait := s.next()
		if e == nil {
			s.sleep(ctx, wait)
			continue
		}
		s.nudge() // for another of us, should more be due
		err := s.do(ctx, e.key)
		if ctx.Err() == nil {
			s.reschedule(e, err)
		}
	}
}

// next takes what is due, or says how long nothing will be.
func (s *Set[K]) next() (*entry[K], time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return nil, s.interval
	}
	e := s.queue[0]
	if wait := time.Until(e.due); wait > 0 {
		return nil, wait
	}
	heap.Pop(&s.queue)
	return e, 0
}

func (s *Set[K]) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-s.wake:
	case <-t.C:
	}
}

// reschedule puts an entry back: after the interval, less up to a tenth so that
// those done together drift apart, or soon when it failed.
func (s *Set[K]) reschedule(e *entry[K], err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e.removed {
		return
	}
	if err != nil {
		e.due = time.Now().Add(e.retry)
		e.retry = min(2*e.retry, max(s.firstRetry(), min(lastRetry, s.interval/8)))
	} else {
		e.due = time.Now().Add(s.interval - rand.N(s.interval/10+1))
		e.retry = s.firstRetry()
		s.settle(e)
	}
	heap.Push(&s.queue, e)
}

// queue is a heap, the soonest first.
type queue[K comparable] []*entry[K]

func (q queue[K]) Len() int           { return len(q) }
func (q queue[K]) Less(i, j int) bool { return q[i].due.Before(q[j].due) }

// Swap implements sort.Interface.
func (q queue[K]) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].at, q[j].at = i, j
}

// Push implements heap.Interface.
func (q *queue[K]) Push(x any) {
	e := x.(*entry[K])
	e.at = len(*q)
	*q = append(*q, e)
}

// Pop implements heap.Interface.
func (q *queue[K]) Pop() any {
	old := *q
	x := old[len(old)-1]
	x.at = -1
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	return x
}
