package evict

import (
	"context"
	"errors"
	"slices"
	"time"

	"skep/cache/space"
	"skep/cache/tree"
)

const (
	// handful is how many files are compared at a time.
	handful = 256
	// firstShare is which share of a handful goes in the first turn; when that
	// is not enough, the share doubles with every turn.
	firstShare = 4
)

const (
	// mostBackOff is the longest that nobody looks for content to let go of after none
	// was found. A commit ends it, and another limit.
	mostBackOff = time.Minute
	// askedBackOff is that while writers ask for room, who wait longer: files are closed
	// meanwhile, and unpinned.
	askedBackOff = 10 * time.Second
)

// makeRoom lets go of content until the use is below the mark, or nothing can
// go.
func (k *Keeper) makeRoom(ctx context.Context) error {
	need := k.excess()
	if need == 0 {
		return nil
	}
	if limit := k.limit.Load(); limit != k.looked {
		k.looked, k.stuckUntil, k.backOff = limit, time.Time{}, 0
	}
	if over := k.backOff - askedBackOff; k.asked.Swap(false) && over > 0 {
		k.stuckUntil, k.backOff = k.stuckUntil.Add(-over), askedBackOff
	}
	if k.cfg.Now().Before(k.stuckUntil) {
		return nil
	}
	for share := firstShare; share >= 1; share /= 2 {
		for _, h := range []*hand{&k.large, &k.small} {
			freed, err := k.turn(ctx, h, share)
			if freed > 0 {
				k.wake(true)
			}
			if err != nil || k.excess() == 0 {
				k.compact()
				return err
			}
		}
	}
	k.compact()
	if freed, err := k.turnOpen(ctx); freed > 0 || err != nil {
		k.wake(freed > 0)
		return err
	}
	k.backOff = min(max(2*k.backOff, every), mostBackOff)
	k.stuckUntil = k.cfg.Now().Add(k.backOff)
	return nil
}

func (k *Keeper) excess() int64 {
	k.mu.Lock()
	wanted, owed := k.wanted, k.owed
	k.mu.Unlock()
	return max(k.level.Load().marks.Excess(k.use(), wanted), owed)
}

// hand goes around files of one kind.
type hand struct {
	at    uint64 // where to look next
	look  func(from uint64, n int, fn func(tree.Resident)) (next uint64, err error)
	evict func(ctx context.Context, ino tree.Ino, need int64) (freed int64)
}

// turn goes around all files of a kind once, and lets go of one in share of them at
// most.
func (k *Keeper) turn(ctx context.Context, h *hand, share int) (freed int64, err error) {
	start := h.at
	wrapped := start == 0
	for need := k.excess(); need > 0; need = k.excess() {
		n, err := k.handful(ctx, h, need, share)
		freed += n
		if err = errors.Join(err, ctx.Err()); err != nil {
			return freed, err
		}
		if wrapped && (h.at == 0 || start > 0 && h.at >= start) {
			return freed, nil // all the way around
		}
		wrapped = wrapped || h.at == 0
	}
	return freed, nil
}

// turnOpen is the last resort: it goes around all files that are open, or partly
// unsynced, and lets go of what a commit has of them.
func (k *Keeper) turnOpen(ctx context.Context) (freed int64, err error) {
	var open []tree.Ino
	for from, first := uint64(0), true; first || from > 0; first = false {
		from, err = k.cfg.Tree.Residents(from, handful, func(r tree.Resident) {
			if r.Partly && r.Local > 0 {
				open = append(open, r.Ino)
			}
		})
		if err = errors.Join(err, ctx.Err()); err != nil {
			return 0, err
		}
	}
	for _, ino := range open {
		if need := k.excess(); need > 0 {
			freed += k.evictParts(ctx, ino, need, true)
		}
	}
	return freed, k.finish(ctx, freed)
}

// mostStaying is for how long files are tried that turn out to have to stay, before the
// rest of a handful is left: their holders may have to be asked for.
const mostStaying = 2 * time.Second

// handful compares the next files, and lets go of the least useful of those that may go.
func (k *Keeper) handful(ctx context.Context, h *hand, need int64, share int) (freed int64, err error) {
	var all []space.Candidate
	now := k.cfg.Now()
	h.at, err = h.look(h.at, handful, func(r tree.Resident) {
		if !r.Kept && r.Local > 0 {
			all = append(all, space.Candidate{ID: uint64(r.Ino), Bytes: r.Local, Age: now.Sub(r.Used)})
		}
	})
	if err != nil {
		return 0, err
	}
	for most := (len(all) + share - 1) / share; freed < need && most > 0 && len(all) > 0; {
		chosen := space.Choose(all, need-freed, most)
		for _, c := range chosen {
			n := h.evict(ctx, tree.Ino(c.ID), need-freed)
			freed += n
			if n > 0 {
				most--
			}
		}
		if k.cfg.Now().Sub(now) > mostStaying || ctx.Err() != nil {
			break
		}
		all = slices.DeleteFunc(all, func(c space.Candidate) bool { return slices.Contains(chosen, c) })
	}
	return freed, k.finish(ctx, freed)
}

// finish lets the bytes go that evictions freed.
func (k *Keeper) finish(ctx context.Context, freed int64) error {
	if freed == 0 {
		return nil
	}
	k.mu.Lock()
	k.freed += freed
	k.owed = max(0, k.owed-freed)
	k.mu.Unlock()
	return k.cfg.Tree.FinishEvictions(ctx)
}

// evictSmall lets go of the content of a file that is a row.
func (k *Keeper) evictSmall(ctx context.Context, ino tree.Ino, _ int64) int64 {
	n, err := k.cfg.Tree.EvictSmall(ctx, ino)
	if err != nil {
		k.cfg.Log.Debug("content stays", "err", err)
	}
	k.dead.Add(n)
	return n
}

// leastDead is how much room deleted rows take before it is worth the work to give
// it back; and it has to be some share of those that are left, which are all
// written again.
const (
	leastDead  = 32 << 20
	deadOfLeft = 8
)

// compact has the room of deleted rows given back, unless that goes on already.
func (k *Keeper) compact() {
	dead := k.dead.Load()
	if dead < max(leastDead, k.cfg.Tree.Small()/deadOfLeft) || !k.compacting.CompareAndSwap(false, true) {
		return
	}
	k.cfg.Compact(func(err error) {
		if err == nil {
			k.dead.Add(-dead)
		} else {
			k.cfg.Log.Debug("rows that were deleted still take room", "err", err)
		}
		k.compacting.Store(false)
	})
}

// evictLarge lets go of a file's content.
func (k *Keeper) evictLarge(ctx context.Context, ino tree.Ino, need int64) int64 {
	return k.evictParts(ctx, ino, need, false)
}

// evictParts lets go of a file's content, or as much of a large one as is needed.
func (k *Keeper) evictParts(ctx context.Context, ino tree.Ino, need int64, open bool) (freed int64) {
	for freed < need {
		n, err := k.cfg.Tree.Evict(ctx, ino, open)
		if err != nil {
			k.cfg.Log.Debug("content stays", "err", err)
		}
		if n == 0 {
			break
		}
		freed += n
	}
	return freed
}
