package writeback

import (
	"cmp"
	"context"
	"slices"
	"time"

	"skep/cache/blocks"
	"skep/chunker/group"
)

const (
	// lookForWeak is how often it is looked, while nothing changes, whether packs
	// could be safer than they are: peers have come.
	lookForWeak = time.Minute
	// weakRest is how long weak packs are left in peace when some could not be read.
	weakRest = 2 * time.Minute
)

// strengthen stores again, under the coding that the peers known now allow, what is
// needed of packs that are clearly less safe: metadata first, or alone if somebody
// waits for more. It moves a bounded part with each commit. That some of it could not
// be done keeps no commit from going on. It needs no knowledge of other devices, as it
// gives up nothing; what was left dies like what was folded.
func (e *Engine) strengthen(ctx context.Context, metadataAlone bool) error {
	weak, err := e.weakPacks()
	if metadataAlone {
		weak = slices.DeleteFunc(weak, func(p blocks.Pack) bool { return p.Kind != group.Metadata })
	}
	if err != nil || len(weak) == 0 {
		return err
	}
	p := newPacker(ctx, e)
	unread, err := e.move(ctx, p, within(foldBudget, weak))
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil || p.weakly.Load():
		e.cfg.Log.Info("packs that could be safer stay as they are for now", "err", err)
		e.strive.failed(e.now())
	default:
		e.strive.worked()
	}
	if unread >= mostUnread {
		e.weakAfter = e.now().Add(weakRest)
	}
	return nil
}

// weakPacks are those that are needed, can be read, and could be clearly safer:
// metadata before content, and what was stored last first.
func (e *Engine) weakPacks() ([]blocks.Pack, error) {
	if e.cfg.Weak == nil || !e.strive.may(e.now()) || e.now().Before(e.weakAfter) {
		return nil, nil
	}
	if counted, err := e.table.Counted(); err != nil || !counted {
		return nil, err // it is not known what is needed
	}
	groups, err := e.table.Groups()
	if err != nil {
		return nil, err
	}
	var weak []blocks.Pack
	for _, g := range groups {
		if !e.isWeak(g) {
			continue
		}
		for n := range g.Packs {
			p, there, err := e.table.Pack(g.ID, n)
			if err != nil {
				return nil, err
			}
			lost := e.cfg.Lost != nil && e.cfg.Lost(g.ID, n)
			if there && p.Live > 0 && !lost && !e.rests(p) {
				weak = append(weak, p)
			}
		}
	}
	slices.SortStableFunc(weak, func(a, b blocks.Pack) int {
		return cmp.Or(firstMetadata(a)-firstMetadata(b), cmp.Compare(b.Number, a.Number))
	})
	return weak, nil
}

func firstMetadata(p blocks.Pack) int {
	if p.Kind == group.Metadata {
		return 0
	}
	return 1
}

// within are the first of some packs, at least one, with no more live bytes than that.
func within(budget uint64, packs []blocks.Pack) []blocks.Pack {
	for i, p := range packs {
		if p.Live > budget && i > 0 {
			return packs[:i]
		}
		budget -= min(budget, p.Live)
	}
	return packs
}

// strengthenLater has a commit follow if there are packs that could be safer.
func (e *Engine) strengthenLater() {
	weak, err := e.weakPacks()
	if err != nil {
		e.cfg.Log.Warn("it is looked later whether packs could be safer", "err", err)
	}
	if len(weak) > 0 {
		e.Changed()
	}
}
