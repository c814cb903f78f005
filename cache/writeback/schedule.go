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
	return fmt.Sprintf("all else is out, but these change all the time, and are out as they were before: %q", m.Paths)
}

// UnreadError says that all was published but these files: a part of them cannot be
// read, here or with holders. Their newest whole versions stand, and they are tried
// again. Err tells why the first of them cannot.
type UnreadError struct {
	Paths []string
	Err   error
}

func (u *UnreadError) Error() string {
	return fmt.Sprintf("all else is out, but what changed in %q is on this device only: %v", u.Paths, u.Err)
}

func (u *UnreadError) Unwrap() error { return u.Err }

// Partly reports whether an error of Sync says that a commit was published which
// lacks some files: a MovingError, an UnreadError, or both.
func Partly(err error) bool {
	var moving *MovingError
	var unread *UnreadError
	return errors.As(err, &moving) || errors.As(err, &unread)
}

// Sync returns when everything that was done before the call is published; with
// an error that is Partly, everything but the files that it names.
func (e *Engine) Sync(ctx context.Context) error {
	defer e.pace.wait()()
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

// longestCountRest is how long counting rests after a step, at most: one that took longer
// than a seventh of it waited for peers.
const longestCountRest = time.Second

// schedule is when things are due. Zero times stand for nothing.
type schedule struct {
	t           Timing
	first, last time.Time     // of the changes that no commit has taken
	look        look          // for changes
	retry       time.Duration // since the commit failed that was tried last
	review      time.Time     // when to look for packs that could be safer

	counting   bool          // references are being counted anew
	countAfter time.Time     // when to go on
	countRetry time.Duration // since it failed
}

// changed takes note that something changed.
func (s *schedule) changed(now time.Time) {
	s.last = now
	if s.first.IsZero() {
		s.first = now
	}
}

// committed takes note of how a commit ended. What would not come to rest is
// tried again like any change.
func (s *schedule) committed(now time.Time, err error) {
	var moving *MovingError
	var unread *UnreadError
	switch {
	case err == nil:
		s.first, s.last, s.retry = time.Time{}, time.Time{}, 0
	case errors.As(err, &moving) && !errors.As(err, &unread):
		s.first, s.last, s.retry = now, now, 0
	default:
		s.first, s.last, s.retry = now, now, min(max(2*s.retry, s.t.Retry), s.t.Most)
	}
}

// counted takes note of how a step of counting ended that took some time. Nobody waits
// for the next one, so it rests like a commit of which that is true (see pace).
func (s *schedule) counted(now time.Time, took time.Duration, more bool, err error) {
	s.counting, s.countAfter = more, now.Add(min(restsFor*took, longestCountRest))
	if err == nil {
		s.countRetry = 0
		return
	}
	s.countRetry = min(max(2*s.countRetry, s.t.Retry), s.t.Most)
	s.countAfter = now.Add(s.countRetry)
}

// commitDue is when the next commit begins by itself; ok is false if none does. One that
// failed is not put off by what changes meanwhile, or a program that writes now and then
// would keep everything here.
func (s *schedule) commitDue() (at time.Time, ok bool) {
	if s.first.IsZero() {
		return at, false
	}
	if s.retry > 0 {
		return s.first.Add(s.retry), true
	}
	at = s.last.Add(s.t.Quiet)
	if most := s.first.Add(s.t.Most); most.Before(at) {
		at = most
	}
	return at, true
}

// wait is how long nothing is due.
func (s *schedule) wait(now time.Time) time.Duration {
	wait := s.review.Sub(now)
	if !s.look.at.IsZero() {
		wait = min(wait, s.look.at.Sub(now))
	}
	if at, ok := s.commitDue(); ok {
		wait = min(wait, at.Sub(now))
	}
	if s.counting {
		wait = min(wait, s.countAfter.Sub(now))
	}
	return max(0, wait)
}

// Urge asks for a commit now, or that the one under way hurry: somebody waits for
// the room that it gives. It never blocks.
func (e *Engine) Urge() {
	e.pace.urge()
	select {
	case e.asked <- &request{done: make(chan error, 1)}:
	default:
	}
}

// Run makes commits until ctx ends: some time after the last change, at most
// some time after the first, and at once for Sync. One that failed is tried
// again. Between them, references are counted where they have to be.
func (e *Engine) Run(ctx context.Context) error {
	s := &schedule{t: e.cfg.Timing, counting: true, review: e.now().Add(lookForWeak)}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	e.Changed() // what an earlier run left is taken soon
	for {
		timer.Reset(s.wait(e.now()))
		select {
		case <-ctx.Done():
			return nil
		case <-e.dirty.wake:
			e.sawChange(s)
		case r := <-e.asked:
			r.done <- e.commitNow(ctx, s)
		case <-timer.C:
			e.lookForChanges(s)
			e.lookForWeak(ctx, s)
			if at, ok := s.commitDue(); ok && !e.now().Before(at) {
				_ = e.commitNow(ctx, s) // the failure is in the schedule
			} else if s.counting && !e.now().Before(s.countAfter) {
				e.countSome(ctx, s)
			}
		}
	}
}

// looks is how often, in the quiet before a commit, the loop looks whether
// there was another change.
const looks = 4

func (e *Engine) sawChange(s *schedule) {
	s.changed(e.now())
	s.look.again(&e.dirty, e.now().Add(s.t.Quiet/looks))
}

func (e *Engine) lookForChanges(s *schedule) {
	if due := s.look.at; !due.IsZero() && !e.now().Before(due) && s.look.more(&e.dirty) {
		e.sawChange(s)
	}
}

// lookForWeak looks now and then whether peers have come with whom packs are safer, and
// whether the newest commit is lost.
func (e *Engine) lookForWeak(ctx context.Context, s *schedule) {
	if now := e.now(); !now.Before(s.review) {
		s.review = now.Add(lookForWeak)
		e.strengthenLater()
		e.sayAnewLater(ctx, now)
	}
}

// sayAnewLater has a commit follow if the newest one is lost.
func (e *Engine) sayAnewLater(ctx context.Context, now time.Time) {
	if err := e.lookBelowLists(ctx); err != nil && ctx.Err() == nil {
		e.cfg.Log.Info("it is looked later whether the whole block index is there", "err", err)
	}
	lost, err := e.isCommitLost()
	switch {
	case err != nil:
		e.cfg.Log.Warn("it is looked later whether the newest commit is lost", "err", err)
	case !lost:
		if e.lostBelow.IsZero() { // else it may be, like the one before
			e.saying = striving{}
		}
	case e.saying.may(now):
		e.saying.failed(now) // unless the next look finds that it helped
		e.Changed()
	}
}

func (e *Engine) commitNow(ctx context.Context, s *schedule) error {
	e.dirty.take() // what was told until now is in the cut
	s.look.at = time.Time{}
	before := e.turned()
	err := e.commit(ctx)
	s.committed(e.now(), err)
	if err == nil && e.turned() != before {
		e.foldLater()
		e.strengthenLater()
	}
	if counted, cerr := e.table.Counted(); cerr == nil && !counted {
		s.counting = true // a commit may have found something that was not counted
	}
	if s.retry > 0 && ctx.Err() == nil {
		e.cfg.Log.Warn("a commit failed and will be tried again", "err", err)
		if err := e.boundJournal(ctx); err != nil {
			e.cfg.Log.Warn("the journal goes on growing", "err", err)
		}
	}
	return err
}

// foldLater has another commit follow, when nobody waits, if there are mostly dead
// packs that are worth one.
func (e *Engine) foldLater() {
	pays, err := e.foldingPays()
	if err != nil {
		e.cfg.Log.Warn("some space is given back with another commit", "err", err)
	}
	if pays {
		e.Changed()
	}
}

// turned is how many commits this run published.
func (e *Engine) turned() uint64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.turns
}

func (e *Engine) countSome(ctx context.Context, s *schedule) {
	begin := e.now()
	more, err := e.recountSome(ctx)
	s.counted(e.now(), e.now().Sub(begin), more, err)
	e.notLearned(err)
	if err != nil && ctx.Err() == nil {
		e.cfg.Log.Info("counting references is put off", "err", err)
	}
}
