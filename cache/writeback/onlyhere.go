package writeback

import (
	"context"

	"skep/cache/blocks"
	"skep/chunker/group"
)

// rescue stores again, in packs of their own, what is needed of packs that are only here:
// of which too few shards are left at holders, and this device has a copy. It does not
// wait for repair, which may have nobody to bring shards to, or be paused. As in
// strengthen, what could not be done keeps no commit from going on, and nothing is given
// up: the old packs die like those that were folded.
func (e *Engine) rescue(ctx context.Context) error {
	if !e.saving.may(e.now()) {
		return nil
	}
	packs, err := e.onlyHere()
	if err != nil || len(packs) == 0 {
		return err
	}
	unread, err := e.move(ctx, newMover(ctx, e, false), packs)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		e.cfg.Log.Info("packs of which holders have too little stay here alone for now", "packs", len(packs), "err", err)
		e.saving.failed(e.now())
	case unread == 0:
		e.cfg.Log.Info("what this device alone had went out again", "packs", len(packs))
		e.saving.worked()
	}
	return nil
}

// onlyHere are the packs that are needed and only here, as many as one commit moves.
func (e *Engine) onlyHere() (out []blocks.Pack, err error) {
	if e.cfg.OnlyHere == nil {
		return nil, nil
	}
	alone := e.cfg.OnlyHere()
	if len(alone) == 0 {
		return nil, nil
	}
	if counted, err := e.table.Counted(); err != nil || !counted {
		return nil, err // it is not known what is needed
	}
	for id, packs := range alone {
		for n := range uint16(group.MaxPacks) {
			if !packs.Has(n) {
				continue
			}
			p, there, err := e.table.Pack(id, n)
			if err != nil {
				return nil, err
			}
			if there && p.Live > 0 && !e.rests(p) {
				out = append(out, p)
			}
		}
	}
	return within(foldBudget, out), nil
}

func (e *Engine) isLost(id packID) bool { return e.cfg.Lost != nil && e.cfg.Lost(id.group, id.number) }

// isSafe reports whether a pack is neither lost nor only here, and enough holders have said
// so: on a device that was recovered it may be gone long since, and only presumed to be there.
func (e *Engine) isSafe(id packID) (bool, error) {
	if e.isLost(id) {
		return false, nil
	}
	if e.cfg.OnlyHere != nil {
		if alone := e.cfg.OnlyHere()[id.group]; alone.Has(id.number) {
			return false, nil
		}
	}
	g, known, err := e.table.Group(id.group)
	if err != nil || !known {
		return false, err
	}
	p, there, err := e.table.Pack(id.group, id.number)
	return there && (e.cfg.Said == nil || e.cfg.Said(p) >= int(g.Coding.K)), err
}
