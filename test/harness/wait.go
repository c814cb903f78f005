package harness

import (
	"context"
	"testing"
	"time"
)

// pollEvery is how often a condition is looked at.
const pollEvery = 50 * time.Millisecond

// Until waits until cond holds and fails the test if it does not within limit.
// What cond says is the state that it saw last.
func Until(t testing.TB, limit time.Duration, what string, cond func() (ok bool, saw string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(Context(t), limit)
	defer cancel()
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		ok, saw := cond()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("not within %v: %s; last seen: %s", limit, what, saw)
		}
	}
}

// Quick fails the test unless fn ends within limit in one of three tries: on a busy
// machine anything may take long once, and what waits for something waits always.
func Quick(t testing.TB, limit time.Duration, what string, fn func()) {
	t.Helper()
	var took [3]time.Duration
	for i := range took {
		began := time.Now()
		fn()
		if took[i] = time.Since(began); took[i] <= limit {
			return
		}
	}
	t.Errorf("%s took %v, not %v", what, took, limit)
}

// lastMoments are left of a test's time for taking everything away.
const lastMoments = 20 * time.Second

// Context ends with the test, or some seconds before its time is up.
func Context(t testing.TB) context.Context {
	type deadliner interface{ Deadline() (time.Time, bool) }
	d, ok := t.(deadliner)
	if !ok {
		return t.Context()
	}
	at, ok := d.Deadline()
	if !ok {
		return t.Context()
	}
	ctx, cancel := context.WithDeadline(t.Context(), at.Add(-lastMoments))
	context.AfterFunc(ctx, cancel)
	return ctx
}
