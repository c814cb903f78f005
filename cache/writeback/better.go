package writeback

import (
	"context"
	"sync"
	"time"

	"skep/chunker/group"
)

// striving says whether better groups are tried than the one that packs are added to.
// Each time that this was in vain, it rests for longer.
type striving struct {
	mu    sync.Mutex // guards all below
	until time.Time  // it rests
	rest  time.Duration
}

const (
	leastVain = time.Minute
	mostVain  = 4 * time.Hour
)

func (s *striving) may(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !now.Before(s.until)
}

// failed says that holders of a better group took nothing.
func (s *striving) failed(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = min(max(2*s.rest, leastVain), mostVain)
	s.until = now.Add(s.rest)
}

// again has better groups be tried now: somebody waits for that.
func (s *striving) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.until = time.Time{}
}

// worked says that they did.
func (s *striving) worked() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = 0
}

// leaving is that a weak group was left for a better one, of which no holders have
// taken a pack yet.
type leaving struct {
	weak group.Group
	to   group.ID
}

// isWeak reports whether packs could be clearly safer than in a group, with so many of
// their shards.
func (e *Engine) isWeak(g group.Group, shards int) bool {
	return e.cfg.Weak != nil && e.cfg.Weak(g.Class, g.Kind, g.Coding.Left(shards))
}

// isWeakNow reports whether what is added to a group now could be clearly safer.
func (e *Engine) isWeakNow(g group.Group) bool { return e.isWeak(g, e.there(g)) }

// there is how many holders of a group would take a shard now, as far as is known.
func (e *Engine) there(g group.Group) int {
	if e.cfg.There == nil {
		return int(g.Coding.N)
	}
	return e.cfg.There(g)
}

// hasSpare reports whether a pack of a group survives the loss of one of so many shards.
func hasSpare(g group.Group, shards int) bool { return shards > int(g.Coding.K) }

// improve returns the group that packs are to be added to instead of one that has room:
// a better one, if it is weak and one can be had now. e.groups is held.
func (e *Engine) improve(ctx context.Context, k groupKind, g group.Group) group.Group {
	if !e.isWeakNow(g) || !e.strive.may(e.now()) {
		return g
	}
	better, err := e.better(ctx, k)
	if err == nil && e.isWeakNow(better) {
		e.strive.failed(e.now()) // peers have gone meanwhile
	}
	if err != nil {
		if ctx.Err() == nil {
			e.strive.failed(e.now())
			e.cfg.Log.Info("packs go on being added to a group that could be better", "err", err)
		}
		return g
	}
	if better.ID == g.ID { // it is not weak any more: repair gave slots to others
		return better
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.left[k] = leaving{g, better.ID}
	return better
}

// better returns a group that is not weak: one that is there and whose holders did not
// fail lately, or else a new one. e.groups is held.
func (e *Engine) better(ctx context.Context, k groupKind) (group.Group, error) {
	all, err := e.table.Groups()
	if err != nil {
		return group.Group{}, err
	}
	var best group.Group
	for _, g := range all {
		if (groupKind{g.Class, g.Kind}) != k || !e.takes(g) || e.isWeakNow(g) || e.now().Before(e.shunned[g.ID]) {
			continue
		}
		if best.Slots == nil || goesBefore(g, best) {
			best = g
		}
	}
	if best.Slots != nil {
		return best, nil
	}
	return e.found(ctx, k)
}

// tookOne says that holders of a group took a pack: who left a weak one for it stays.
func (e *Engine) tookOne(k groupKind, id group.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.left[k].to == id {
		delete(e.left, k)
	}
}

// shunFor is for how long a group is not tried again whose holders took no pack.
const shunFor = time.Hour

// fallBack has packs be added again to the weak group that was left for one whose
// holders did not take a pack. It reports whether there is one.
func (e *Engine) fallBack(ctx context.Context, k groupKind, failed group.ID) (bool, error) {
	if err := e.groups.Acquire(ctx, 1); err != nil {
		return false, err
	}
	defer e.groups.Release(1)
	e.mu.Lock()
	l := e.left[k]
	e.mu.Unlock()
	if l.to != failed || l.weak.Slots == nil {
		return false, nil
	}
	weak, known, err := e.table.Group(l.weak.ID)
	if err != nil || !known || !e.takes(weak) {
		return false, err
	}
	if e.current[k].ID == failed {
		e.current[k] = weak
		e.shunned[failed] = e.now().Add(shunFor)
		e.strive.failed(e.now())
	}
	return true, nil
}
