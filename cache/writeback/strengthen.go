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
	unread, err := e.move(ctx, newMover(ctx, e, true), weak)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
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

// weakPacks are those that are needed, can be read, and could be clearly safer, as many
// as one commit moves: metadata before content, and of a group what was stored last
// first.
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
	groups = slices.DeleteFunc(groups, func(g group.Group) bool { return !e.isWeak(g, leastShards(g)) })
	slices.SortStableFunc(groups, func(a, b group.Group) int { return cmp.Compare(b.Kind, a.Kind) })
	var weak []blocks.Pack
	for live := uint64(0); len(groups) > 0 && live < foldBudget; groups = groups[1:] {
		in, err := e.movable(groups[0])
		if err != nil {
			return nil, err
		}
		for _, p := range in {
			live += p.Live
		}
		weak = append(weak, in...)
	}
	return within(foldBudget, weak), nil
}

// leastShards is with how few shards a pack of a group counts as weak. Where more than
// one may be missing, repair brings them in time: only if that cannot be, as a holder is
// away, is a pack stored again that has no more shards than it needs.
func leastShards(g group.Group) int {
	if g.Coding.N == g.Coding.K+1 {
		return int(g.Coding.K)
	}
	return int(g.Coding.N)
}

// movable are the packs of a group that are needed, weak, and can be read, the newest
// first.
func (e *Engine) movable(g group.Group) (out []blocks.Pack, err error) {
	for n := int(g.Packs) - 1; n >= 0; n-- {
		number := uint16(n)
		p, there, err := e.table.Pack(g.ID, number)
		if err != nil {
			return nil, err
		}
		if there && p.Live > 0 && !e.isLost(packID{g.ID, number}) && !e.rests(p) && e.isWeak(g, max(leastShards(g), e.live(g, p))) {
			out = append(out, p)
		}
	}
	return out, nil
}

// live is how many shards of a pack are believed to be there.
func (e *Engine) live(g group.Group, p blocks.Pack) int {
	if e.cfg.Live == nil {
		return int(g.Coding.N)
	}
	return e.cfg.Live(g, p)
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

// strengthenNow has what could not be made safer lately be tried again: somebody waits.
func (e *Engine) strengthenNow() {
	e.strive.again()
	e.saving.again()
	e.weakAfter = time.Time{}
	clear(e.unfolded)
}

// strengthenLater has a commit follow if there are packs that could be safer.
func (e *Engine) strengthenLater() {
	weak, err := e.weakPacks()
	if err == nil && len(weak) == 0 && e.saving.may(e.now()) {
		weak, err = e.onlyHere()
	}
	if err != nil {
		e.cfg.Log.Warn("it is looked later whether packs could be safer", "err", err)
	}
	if len(weak) > 0 {
		e.Changed()
	}
}
