package evict

import (
	"context"
	"errors"
	"time"

	"skep/cache/tree"
)

// Write implements tree.Room: it returns when n bytes may be written. Writers
// are slowed while much is unsynced, and wait while there is no room, as long
// as uploads go on or content can be let go of; else they are refused.
func (k *Keeper) Write(ctx context.Context, n int64) error {
	u, l := k.use(), k.level.Load()
	if u.Waiting <= l.marks.Slow && l.marks.Fits(u, n) {
		return nil // nearly always
	}
	if n > l.marks.Limit-l.tables {
		return tree.ErrNoSpace // it never will
	}
	if d := l.marks.Delay(u, n, k.uplinkRate()); d > 0 {
		k.hurry()
		if err := sleep(ctx, d); err != nil {
			return err
		}
	}
	if k.fits(n) {
		return nil
	}
	k.join(n)
	defer k.leave()
	for !k.fits(n) {
		if err := k.awaitRoom(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Again implements tree.Room. The disk is measured anew, as others have taken of it.
// Where it refuses and says that it has room all the same, twice in a row, there is a
// quota: then as much is let go of as it refuses.
func (k *Keeper) Again(ctx context.Context, n int64, try func() error) error {
	k.join(n)
	defer k.leave()
	for refused := 0; ; refused++ {
		if refused > 0 { // what was let go of may not be off the disk yet
			if err := k.awaitRoom(ctx); err != nil {
				k.giveUp()
				return err
			}
		}
		k.measure()
		if l := k.level.Load(); n > l.marks.Limit-l.tables {
			return tree.ErrNoSpace
		}
		if refused > 1 && k.fits(n) {
			k.owe(n)
		}
		for k.owes() || !k.fits(n) {
			if err := k.awaitRoom(ctx); err != nil {
				k.giveUp()
				return err
			}
		}
		if err := try(); !errors.Is(err, tree.ErrNoSpace) {
			return err
		}
	}
}

// owe has n bytes let go of.
func (k *Keeper) owe(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.owed = max(k.owed, n)
}

func (k *Keeper) owes() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.owed > 0
}

// giveUp takes note that the disk refused a writer although it says that there is room.
func (k *Keeper) giveUp() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.refused = k.cfg.Now()
}

// refusing reports whether the disk refused a writer lately, and nothing moved since.
func (k *Keeper) refusing() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.full && k.cfg.Now().Sub(k.refused) < refusal
}

// refusal is for how long a writer need not try what the one before it waited for in
// vain.
const refusal = time.Minute

func (k *Keeper) fits(n int64) bool { return k.level.Load().marks.Fits(k.use(), n) }

func (k *Keeper) uplinkRate() float64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.speed.Rate()
}

// join counts one more writer that waits, for n bytes. The first one's patience
// begins now.
func (k *Keeper) join(n int64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.wanted = max(k.wanted, n)
	if k.waiting++; k.waiting == 1 {
		k.since = k.cfg.Now()
	}
}

func (k *Keeper) leave() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.waiting--; k.waiting == 0 {
		k.wanted, k.owed = 0, 0
	}
}

// awaitRoom waits until there may be room. When nothing moves for too long, the
// writer is refused, and those after it at once, until there is room again.
func (k *Keeper) awaitRoom(ctx context.Context) error {
	k.asked.Store(true)
	k.hurry()
	moved, left := k.patience()
	if left <= 0 {
		return tree.ErrNoSpace
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-moved:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// patience tells for how long a writer may still wait while nothing moves.
func (k *Keeper) patience() (moved <-chan struct{}, left time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	left = k.cfg.Patience - k.cfg.Now().Sub(k.since)
	if k.full || left <= 0 {
		k.full, left = true, 0
	}
	return k.moved, left
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Keep implements tree.Room: it reports whether n bytes that were fetched may
// be kept.
func (k *Keeper) Keep(n int64) bool {
	if k.fits(n) {
		return true
	}
	k.hurry()
	return false
}

// PassThrough implements tree.Room: it reports whether the kernel may be let
// write a new file alone.
func (k *Keeper) PassThrough() bool {
	l := k.level.Load()
	return l.marks.PassThrough(k.use(), l.disk)
}
