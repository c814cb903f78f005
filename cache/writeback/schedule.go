package writeback

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Timing says when a commit starts by itself.
type Timing struct {
	Quiet time.Duration // this long after the last change …
	Most  time.Duration // … but at most this long after the first one
	Retry time.Duration // after a commit failed, doubled up to Most
}

// DefaultTiming is that of a drive in use.
var DefaultTiming = Timing{Quiet: 3 * time.Second, Most: 30 * time.Second, Retry: 2 * time.Second}

// request is somebody who waits for a commit that begins after he asked.
type request struct{ done chan error }

// MovingError says that all was published but these files, which did not come
// to rest: their newest whole versions stand.
type MovingError struct{ Paths []string }

func (m *MovingError) Error() string {
	return fmt.Sprintf("%d files are being written and were not taken whole: %q", len(m.Paths), m.Paths)
}

// Sync returns when everything that was done before the call is published; with
// a MovingError, everything but files that are being written.
func (e *Engine) Sync(ctx context.Context) error {
	r := &request{done: make(chan error, 1)}
	select {
	case e.asked <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run makes commits until ctx ends: some time after the last change, at most
// some time after the first, and at once for Sync. One that failed is tried
// again.
func (e *Engine) Run(ctx context.Context) error {
	var first, last time.Time // of the changes not taken; zero: none
	var retry time.Duration
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	// What an earlier run left is taken soon.
	e.Changed()
	counting := true
	for {
		var waiting []*request
		if counting {
			counting = e.recountSome(ctx)
		}
		timer.Reset(e.delay(first, last, retry))
		if counting && first.IsZero() {
			timer.Reset(0)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.dirty:
			last = e.now()
			if first.IsZero() {
				first = last
			}
			continue
		case r := <-e.asked:
			waiting = append(waiting, r)
		case <-timer.C:
			if first.IsZero() {
				continue
			}
		}
		select { // what was told until now is in the cut
		case <-e.dirty:
		default:
		}
		err := e.commit(ctx)
		var moving *MovingError
		if err == nil || errors.As(err, &moving) {
			first, last, retry = time.Time{}, time.Time{}, 0
			if moving != nil {
				first, last = e.now(), e.now()
			}
		} else if ctx.Err() == nil {
			e.cfg.Log.Warn("a commit failed and will be tried again", "err", err)
			retry = min(max(2*retry, e.cfg.Timing.Retry), e.cfg.Timing.Most)
			first = e.now()
			last = first
		}
		for _, r := range waiting {
			r.done <- err
		}
	}
}

// delay is how long to wait for the next commit.
func (e *Engine) delay(first, last time.Time, retry time.Duration) time.Duration {
	if first.IsZero() {
		return time.Hour
	}
	if retry > 0 {
		return max(0, last.Add(retry).Sub(e.now()))
	}
	due := last.Add(e.cfg.Timing.Quiet)
	if most := first.Add(e.cfg.Timing.Most); most.Before(due) {
		due = most
	}
	return max(0, due.Sub(e.now()))
}
