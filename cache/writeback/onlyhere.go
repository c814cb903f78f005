package writeback

import (
	"context"
	"errors"
	"io"

	"skep/cache/blocks"
	"skep/chunker/block"
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
	if err == nil && unread > 0 {
		err = e.salvage(ctx, packs)
	}
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

// salvage moves, out of packs that could not be moved as their copies here are damaged,
// what can be read, and removes these then: what is left counts as lost, and is made
// again from files and folders, as far as these are here.
func (e *Engine) salvage(ctx context.Context, packs []blocks.Pack) error {
	p := newMover(ctx, e, false)
	var damaged []blocks.Pack
	for _, pk := range packs {
		if !e.rests(pk) {
			continue
		}
		isDamaged, err := e.salvageFrom(ctx, p, pk)
		if err != nil {
			return errors.Join(err, p.flush())
		}
		if isDamaged {
			damaged = append(damaged, pk)
		}
	}
	if err := p.flush(); err != nil {
		return err
	}
	if len(damaged) == 0 {
		return nil
	}
	if err := e.cfg.State.Sync(); err != nil { // else power loss may make the copies needed again
		return err
	}
	for _, pk := range damaged {
		e.cfg.Log.Warn("the only copy that is left of a pack of metadata is damaged: what cannot be read of it is made again from what is here", "group", pk.Group, "number", pk.Number)
		if err := e.packs.Remove(pk.Group, pk.Number); err != nil {
			return err
		}
	}
	return nil
}

// salvageFrom puts the live blocks whose home a pack is into others, but for those that
// are damaged in the copy here, and reports whether some are and the disk gives all of it.
// What it does not give now, it may another time.
func (e *Engine) salvageFrom(ctx context.Context, p *packer, pk blocks.Pack) (damaged bool, err error) {
	members, err := e.table.Members(pk.Group, pk.Number)
	if err != nil {
		return false, err
	}
	unread := false
	for _, m := range members {
		home := m.Places[0]
		if m.Refs == 0 || home.Group != pk.Group || home.Number != pk.Number {
			continue
		}
		ct, err := e.packs.Read(pk.Group, pk.Number, int(home.Offset), int(home.Length))
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			unread = true
		}
		if err != nil || block.HashOf(ct) != m.Link.Hash {
			damaged = true
			if len(m.Places) == 1 {
				continue
			}
			if ct, err = e.reader.Ciphertext(ctx, m.Link); err != nil {
				continue
			}
		}
		if err := p.add(ctx, block.Sealed{Link: m.Link, Tag: m.Tag, Ciphertext: ct}); err != nil {
			return false, err
		}
	}
	return damaged && !unread, nil
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

// isSafe reports whether a pack is neither lost, only here nor dead, and enough holders have
// said so: on a device that was recovered it may be gone long since, and only presumed to be there.
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
	if err != nil || !known || g.Dead.Has(id.number) {
		return false, err
	}
	p, there, err := e.table.Pack(id.group, id.number)
	return there && (e.cfg.Said == nil || e.cfg.Said(p) >= int(g.Coding.K)), err
}
