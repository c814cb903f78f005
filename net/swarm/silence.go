package swarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/client"
)

// Why a read ended that was not ended by its caller.
var (
	errSilence = errors.New("nothing has come for too long")
	errTimeout = errors.New("the time for a read is over")
)

// quiet are the groups of which the last read ended because nothing came, and
// when it did.
type quiet struct {
	mu     sync.Mutex // guards groups
	groups map[group.ID]time.Time
}

// ended takes note of a read that ended so.
func (q *quiet) ended(id group.ID, now time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.groups == nil || len(q.groups) >= maxFound {
		q.groups = map[group.ID]time.Time{}
	}
	q.groups[id] = now
}

// over takes note that something came of a group.
func (q *quiet) over(id group.ID) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.groups, id)
}

// patience is how long a read goes on when nothing comes: a tenth where that
// was just so with another one, as when the kernel asks again for what failed.
func (q *quiet) patience(id group.ID, whole time.Duration, now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()
	if at, ok := q.groups[id]; ok && now.Sub(at) < whole {
		return whole / 10
	}
	return whole
}

// listen returns a context for a read of a group, which ends when nothing at
// all has come of what is asked for with it for Config.Silence, and heard, which
// says that something has come; bytes of answers say so themselves.
func (s *Swarm) listen(ctx context.Context, id group.ID, timeout time.Duration) (_ context.Context, heard func(), cancel func()) {
	ctx, stop := context.WithCancelCause(ctx)
	silence := time.AfterFunc(s.quiet.patience(id, s.c.Silence, s.c.Now()), func() {
		if ctx.Err() == nil { // else it is over, and some bytes came late
			s.quiet.ended(id, s.c.Now())
			stop(errSilence)
		}
	})
	total := time.AfterFunc(timeout, func() { stop(errTimeout) })
	var once sync.Once
	heard = func() {
		if ctx.Err() != nil {
			return
		}
		once.Do(func() { s.quiet.over(id) })
		silence.Reset(s.c.Silence)
	}
	return client.Watched(ctx, func(int) { heard() }), heard, func() {
		silence.Stop()
		total.Stop()
		stop(context.Canceled)
	}
}

// unlessMute returns a context for one call, which ends when no answer has begun
// to come after some time.
func unlessMute(ctx context.Context, patience time.Duration) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	timer := time.AfterFunc(patience, func() { stop(errSilence) })
	return client.Watched(ctx, func(int) { timer.Stop() }), func() {
		timer.Stop()
		stop(context.Canceled)
	}
}

// gaveUp reports whether a context of listen ended by a deadline of ours, for
// which holders were too slow.
func gaveUp(ctx context.Context) bool {
	cause := context.Cause(ctx)
	return cause == errSilence || cause == errTimeout
}

// MissingError says what was missing for a read of a pack. It is an ErrLost or
// an ErrUnreachable.
type MissingError struct {
	Kind        error // ErrLost or ErrUnreachable
	Needed, Of  int   // shards: any Needed of Of
	Answered    int   // those that came
	Lost        int   // those that their holders do not have
	Unreachable int   // those whose holders do not answer
	Err         error // why, of one of them
}

// Error counts the shards.
func (e *MissingError) Error() string {
	return fmt.Sprintf("%v: %d of %d shards are needed, %d came, %d are lost, %d are out of reach (%v)",
		e.Kind, e.Needed, e.Of, e.Answered, e.Lost, e.Unreachable, e.Err)
}

// Unwrap returns the kind and the cause.
func (e *MissingError) Unwrap() []error { return []error{e.Kind, e.Err} }

// counted makes of an error with which a read ended one that says what was
// missing: all of it, where the read did not come so far as to count.
func counted(ctx context.Context, ref group.PackRef, err error) error {
	if err == nil {
		return nil
	}
	if _, ok := errors.AsType[*MissingError](err); ok || !errors.Is(err, ErrUnreachable) && !(gaveUp(ctx) && ended(err)) {
		return err
	}
	if gaveUp(ctx) {
		err = context.Cause(ctx)
	}
	n := int(ref.Coding.N)
	return &MissingError{Kind: ErrUnreachable, Needed: int(ref.Coding.K), Of: n, Unreachable: n, Err: err}
}

// ended reports whether an error is that of a context.
func ended(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
