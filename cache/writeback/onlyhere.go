package writeback

import (
	"context"
	"errors"
	"slices"

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
func (e *Engine) onlyHere() ([]blocks.Pack, error) {
	if counted, err := e.table.Counted(); err != nil || !counted || e.cfg.Live == nil {
		return nil, err // it is not known what is needed
	}
	groups, err := e.table.Groups()
	if err != nil {
		return nil, err
	}
	by := make(map[group.ID]group.Group, len(groups))
	for _, g := range groups {
		by[g.ID] = g
	}
	var out []blocks.Pack
	err = e.table.Packs(func(p blocks.Pack) bool {
		if g, known := by[p.Group]; known && p.Kind == group.Metadata && p.Live > 0 && e.hasTooFew(g, p) {
			out = append(out, p)
		}
		return true
	})
	out = slices.DeleteFunc(out, func(p blocks.Pack) bool { return e.rests(p) || e.isLost(packID{p.Group, p.Number}) })
	return within(foldBudget, out), err
}

// hasTooFew reports whether holders have too few shards of a pack to bring it back.
func (e *Engine) hasTooFew(g group.Group, p blocks.Pack) bool { return e.live(g, p) < int(g.Coding.K) }

func (e *Engine) isLost(id packID) bool { return e.cfg.Lost != nil && e.cfg.Lost(id.group, id.number) }

// isHereAtMost reports whether a pack is lost, or only here.
func (e *Engine) isHereAtMost(id packID) (bool, error) {
	if e.isLost(id) {
		return true, nil
	}
	g, known, err := e.table.Group(id.group)
	p, there, perr := e.table.Pack(id.group, id.number)
	return known && there && e.hasTooFew(g, p), errors.Join(err, perr)
}
