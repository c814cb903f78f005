package evict

import (
	"context"
	"errors"
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

// mostBackOff is the longest that nobody looks for content to let go of after
// none was found. A commit ends it.
const mostBackOff = time.Minute

// makeRoom lets go of content until the use is below the mark, or nothing can
// go.
func (k *Keeper) makeRoom(ctx context.Context) error {
	need := k.excess()
	if need == 0 {
		return nil
	}
	if k.cfg.Now().Before(k.stuckUntil) {
		return nil
	}
	for share := firstShare; share >= 1; share /= 2 {
		freed, err := k.turn(ctx, share)
		if freed > 0 {
			k.wake(true)
		}
		if err != nil || k.excess() == 0 {
			return err
		}
	}
	if freed, err := k.turnOpen(ctx); freed > 0 || err != nil {
		k.wake(freed > 0)
		return err
	}
	k.backOff = min(max(2*k.backOff, every), mostBackOff)
	k.stuckUntil = k.cfg.Now().Add(k.backOff)
	return nil
}

func (k *Keeper) excess() int64 { return k.level.Load().marks.Excess(k.use()) }

// turn goes around all files once, and lets go of one in share of them at most.
func (k *Keeper) turn(ctx context.Context, share int) (freed int64, err error) {
	start := k.hand
	wrapped := start == 0
	for need := k.excess(); need > 0; need = k.excess() {
		n, err := k.handful(ctx, need, share)
		freed += n
		if err = errors.Join(err, ctx.Err()); err != nil {
			return freed, err
		}
		if wrapped && (k.hand == 0 || start > 0 && k.hand >= start) {
			return freed, nil // all the way around
		}
		wrapped = wrapped || k.hand == 0
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
			freed += k.evict(ctx, ino, need, true)
		}
	}
	return freed, k.finish(ctx, freed)
}

// handful compares the next files, and lets go of the least useful.
func (k *Keeper) handful(ctx context.Context, need int64, share int) (freed int64, err error) {
	var all []space.Candidate
	now := k.cfg.Now()
	k.hand, err = k.cfg.Tree.Residents(k.hand, handful, func(r tree.Resident) {
		if !r.Kept && r.Local > 0 {
			all = append(all, space.Candidate{ID: uint64(r.Ino), Bytes: r.Local, Age: now.Sub(r.Used)})
		}
	})
	if err != nil {
		return 0, err
	}
	for _, c := range space.Choose(all, need, (len(all)+share-1)/share) {
		freed += k.evict(ctx, tree.Ino(c.ID), need-freed, false)
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
	k.mu.Unlock()
	return k.cfg.Tree.FinishEvictions(ctx)
}

// evict lets go of a file's content, or as much of a large one as is needed.
func (k *Keeper) evict(ctx context.Context, ino tree.Ino, need int64, open bool) (freed int64) {
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
