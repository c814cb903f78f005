package repeat

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

type log struct {
	mu    sync.Mutex
	times map[int][]time.Time
}

func (l *log) add(k int) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times[k] = append(l.times[k], time.Now())
	return len(l.times[k])
}

func TestEveryInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := log{times: map[int][]time.Time{}}
		s := New(time.Hour, func(_ context.Context, k int) error {
			l.add(k)
			return nil
		})
		for k := range 20 {
			s.Add(0, k)
		}
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.Add(0, 3) // again: no effect
		time.Sleep(10 * time.Hour)
		s.Remove(7)
		time.Sleep(10 * time.Hour)
		s.Close()
		for k, times := range l.times {
			want := 20
			if k == 7 {
				want = 10
			}
			if len(times) < want || len(times) > want+4 {
				t.Errorf("key %d was done %d times in 20 h", k, len(times))
			}
			for i := range times[1:] {
				if d := times[i+1].Sub(times[i]); d > time.Hour || d < 54*time.Minute {
					t.Errorf("key %d: %v apart", k, d)
				}
			}
		}
	})
}

func TestRetries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := log{times: map[int][]time.Time{}}
		s := New(24*time.Hour, func(_ context.Context, k int) error {
			if l.add(k) < 5 {
				return errors.New("not yet")
			}
			return nil
		})
		defer s.Close()
		begin := time.Now()
		s.Add(time.Minute, 1, 2, 3)
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(begin); d < 225*time.Second || d > 225*time.Second+2*time.Minute {
			t.Errorf("five attempts took %v", d)
		}
	})
}

// What failed for a long time, as there was no swarm, is done soon after there is one.
func TestRetriesAfterALongTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := log{times: map[int][]time.Time{}}
		back := time.Now().Add(30 * time.Hour)
		s := New(22*time.Hour, func(_ context.Context, k int) error {
			if l.add(k); time.Now().Before(back) {
				return errors.New("no swarm")
			}
			return nil
		})
		defer s.Close()
		s.Add(time.Minute, 1, 2, 3)
		if err := s.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(back); d > lastRetry {
			t.Errorf("%v later", d)
		}
	})
}

func TestRemovedCountsAsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(time.Hour, func(ctx context.Context, _ int) error {
			<-ctx.Done()
			return ctx.Err()
		})
		defer s.Close()
		s.Add(0, 1)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.Wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Wait on work that never ends: %v", err)
		}
		s.Remove(1)
		if err := s.Wait(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// What is removed is not kept until it would have been due: somebody may add and remove
// again and again. What is left is done as if nothing had been.
func TestRemovedTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := log{times: map[int][]time.Time{}}
		s := New(time.Hour, func(_ context.Context, k int) error {
			l.add(k)
			return nil
		})
		defer s.Close()
		s.Add(0, 1, 2, 3, 4, 5)
		for range 1000 {
			s.Add(time.Minute, 6, 7, 8)
			s.Remove(7, 6)
			synctest.Wait()
			s.Remove(8)
		}
		s.mu.Lock()
		if n := len(s.queue); n > 5 {
			t.Errorf("%d entries are queued", n)
		}
		for i, e := range s.queue {
			if e.at != i || i > 0 && s.queue.Less(i, (i-1)/2) {
				t.Errorf("the queue is in no order at %d", i)
			}
		}
		s.mu.Unlock()
		time.Sleep(5 * time.Hour)
		for k := 1; k <= 5; k++ {
			if n := l.add(k); n < 6 {
				t.Errorf("key %d was done %d times", k, n-1)
			}
		}
	})
}
