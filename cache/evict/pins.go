package evict

import (
	"context"
	"errors"
	"time"

	"skep/cache/tree"
)

// Pins is how far what is pinned is here.
type Pins struct {
	Files, Bytes int64
	Here         int64 // bytes of them that are on this device
	// At is when they were counted.
	At time.Time
	// TooLarge says that they do not fit into the cache.
	TooLarge bool
}

// pinsEvery is how often it is looked for something new to fetch below pinned
// folders when nobody asks.
const pinsEvery = 10 * time.Minute

// pinsRetry is how soon it is tried again when something could not be fetched.
const pinsRetry = time.Minute

// PinsChanged says that something was pinned or unpinned.
func (k *Keeper) PinsChanged() {
	select {
	case k.pinned <- struct{}{}:
	default:
	}
}

// KeepPins fetches what is pinned and not here, until ctx ends.
func (k *Keeper) KeepPins(ctx context.Context) error {
	for {
		p, err := k.fetchPins(ctx)
		if err != nil && ctx.Err() == nil {
			k.cfg.Log.Info("not all that is pinned is here yet", "err", err)
		}
		k.mu.Lock()
		k.pins = p
		k.mu.Unlock()
		wait := pinsEvery
		if err != nil {
			wait = pinsRetry
		}
		again := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			again.Stop()
			return nil
		case <-k.pinned:
		case <-again.C:
		}
		again.Stop()
	}
}

// fetchPins goes through all that is pinned once. A file that cannot be fetched
// does not keep the others away.
func (k *Keeper) fetchPins(ctx context.Context) (p Pins, err error) {
	seen := map[tree.Ino]bool{}
	for _, ino := range k.cfg.Tree.Pins() {
		werr := k.cfg.Tree.EachFile(ctx, ino, func(a tree.Attr) error {
			if seen[a.Ino] {
				return nil
			}
			seen[a.Ino] = true
			ferr := k.cfg.Tree.Fetch(ctx, a.Ino)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if errors.Is(ferr, tree.ErrNoSpace) {
				k.hurry()
			}
			if err == nil {
				err = ferr
			}
			return k.count(ctx, &p, a.Ino)
		})
		if err == nil {
			err = werr
		}
	}
	l := k.level.Load()
	p.At = k.cfg.Now()
	p.TooLarge = p.Bytes > l.marks.Limit-l.tables
	return p, err
}

// count adds a file to what is pinned.
func (k *Keeper) count(ctx context.Context, p *Pins, ino tree.Ino) error {
	s, err := k.cfg.Tree.ContentState(ctx, ino)
	if errors.Is(err, tree.ErrStale) {
		return nil
	}
	p.Files++
	p.Bytes += s.Size
	p.Here += s.Resident
	return err
}

// Below counts what a pin of a file or folder holds here.
func (k *Keeper) Below(ctx context.Context, ino tree.Ino) (p Pins, err error) {
	err = k.cfg.Tree.EachFile(ctx, ino, func(a tree.Attr) error { return k.count(ctx, &p, a.Ino) })
	return p, err
}
