package writeback

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// spend is a piece of work that takes a while.
func spend(d time.Duration) func() error {
	return func() error {
		time.Sleep(d)
		return nil
	}
}

// many does a number of pieces of work, four at a time, and returns how long that
// took.
func many(t *testing.T, p *pace, pieces int, each time.Duration) time.Duration {
	begin := time.Now()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range pieces / 4 {
				if err := p.work(t.Context(), spend(each)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	return time.Since(begin)
}

// TestPace: work that nobody waits for is done one piece after the other and takes
// its part of the time, however small the pieces are; what somebody waits for
// is done at once.
func TestPace(t *testing.T) {
	for _, each := range []time.Duration{10 * time.Microsecond, time.Millisecond, 30 * time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			p := newPace()
			const pieces = 4000
			work := pieces * each
			all := work * (1 + restsFor)
			if took := many(t, p, pieces, each); took < all-leastRest-restsFor*each || took > all {
				t.Errorf("%v of work in pieces of %v took %v, want %v", work, each, took, all)
			}
			done := p.wait()
			if took := many(t, p, pieces, each); took != work/4 {
				t.Errorf("%v of work that is waited for took %v, want %v", work, took, work/4)
			}
			done()
			if took := many(t, p, pieces, each); took < all-2*leastRest-restsFor*each {
				t.Errorf("%v of work took %v when nobody waited any more", work, took)
			}
		})
	}
}

// TestPaceHurries: who begins to wait does so at full speed, also for what rests.
func TestPaceHurries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		_ = p.work(t.Context(), spend(time.Hour)) // hours of rest are due
		var ended atomic.Int32
		for range 3 { // one rests, the others wait for it
			go func() {
				_ = p.work(t.Context(), spend(0))
				ended.Add(1)
			}()
		}
		time.Sleep(time.Minute)
		if n := ended.Load(); n != 0 {
			t.Errorf("%d pieces of work were done without a rest", n)
		}
		p.urge()
		synctest.Wait()
		if n := ended.Load(); n != 3 {
			t.Errorf("%d of 3 pieces of work were done for somebody who waits", n)
		}
		p.ended()
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := p.work(short, spend(0)); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("what was cancelled while it rested: %v", err)
		}
	})
}

// TestPaceAlone: of what nobody waits for, one pack is on its way at a time; as soon
// as somebody waits, all may be.
func TestPaceAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPace()
		var flying, landed atomic.Int32
		for range 4 {
			go func() {
				done, err := p.alone(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				flying.Add(1)
				time.Sleep(time.Minute)
				done()
				landed.Add(1)
			}()
		}
		time.Sleep(time.Second)
		if n := flying.Load(); n != 1 {
			t.Errorf("%d packs are on their way though nobody waits", n)
		}
		time.Sleep(time.Minute)
		if n := flying.Load(); n != 2 {
			t.Errorf("%d packs were sent after one landed, want 2", n)
		}
		p.urge()
		synctest.Wait()
		if n := flying.Load(); n != 4 {
			t.Errorf("%d of 4 packs were sent though somebody waits", n)
		}
		time.Sleep(2 * time.Minute)
		p.ended()
		done, err := p.alone(t.Context())
		if err != nil || landed.Load() != 4 {
			t.Fatalf("afterwards, with %d of 4 landed: %v", landed.Load(), err)
		}
		defer done()
		short, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := p.alone(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a second one that was cancelled: %v", err)
		}
	})
}
