package writeback

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/cache/blocks"
	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
)

const (
	// reclaimStep is how many blocks are dropped in one batch.
	reclaimStep = 512
	// foldBudget bounds how many live bytes one commit moves.
	foldBudget = 32 << 20
	// smallPacks is how many packs of a small class may gather before they
	// are folded into a larger one.
	smallPacks = 12
)

// afterwards gives back what the newest commit does not need: blocks without
// references are dropped, packs without live blocks are declared dead, and the
// journal forgets what the commit has. What that commit took is settled. needs are roots
// of content that it lacks, and that is kept.
func (e *Engine) afterwards(ctx context.Context, seq uint64, needs []link.Link) error {
	if err := e.table.Hold(append(e.cfg.Tree.Needs(), needs...)); err != nil {
		return err
	}
	counted, err := e.table.Counted()
	if err != nil {
		return err
	}
	if counted {
		err = e.giveBack(ctx)
	}
	if err != nil {
		return err
	}
	drops := e.cfg.State.Droppable(seq)
	rest := max(e.carried, e.cfg.State.JournalSize()-drops-forgetFrom)
	if drops < max(forgetFrom, min(forgetOver*rest, e.cfg.JournalMax)) {
		return nil
	}
	return e.forget(ctx)
}

// giveBack drops what nothing refers to, and the packs that have nothing else.
func (e *Engine) giveBack(ctx context.Context) error {
	if err := e.reclaim(ctx); err != nil {
		return fmt.Errorf("reclaim: %w", err)
	}
	return e.buryDead(ctx, false)
}

const (
	// unreadRest is how long a block that cannot be read is left in peace.
	unreadRest = 10 * time.Minute
	// mostUnread is how many such blocks one commit tries: each may take as long
	// as a read that nobody answers.
	mostUnread = 2
)

// reclaim drops what nothing refers to, but for what has to be read for that and
// cannot be: that is left for another time.
func (e *Engine) reclaim(ctx context.Context) error {
	if now := e.now(); !now.Before(e.retryUnread) {
		e.table.RetryUnread()
		e.retryUnread = now.Add(unreadRest)
	}
	children := func(l link.Link) ([]link.Link, error) { return e.children(ctx, l) }
	for unread := 0; unread < mostUnread; {
		more, err := e.table.Reclaim(reclaimStep, children)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, blocks.ErrUnread):
			e.cfg.Log.Info("some space is given back later", "err", err)
			unread++
		case err != nil || !more:
			return err
		}
	}
	return nil
}

// forgetFrom is how much of the journal gathers before it is worth the work to
// drop it. What has to be written again because of it is to be little beside it:
// what was the last time, and what it may be now, which is no more than what was
// written since.
const (
	forgetFrom = 32 << 20
	forgetOver = 4
)

// forget drops what the journal has until now, having written again what neither
// the newest commit nor the rest of the journal would give back if the index were lost.
func (e *Engine) forget(ctx context.Context) error {
	work := func(piece func() error) error { return e.pace.work(ctx, piece) }
	first, carried, err := e.cfg.Tree.Carry(work)
	if e.carried = carried; err != nil {
		return err
	}
	if err := e.table.Carry(); err != nil {
		return err
	}
	return e.cfg.State.Forget(first)
}

// boundJournal keeps the journal from growing while no commit succeeds: it is
// written anew when it is twice as long as what it came to the last time.
func (e *Engine) boundJournal(ctx context.Context) error {
	if e.cfg.State.JournalSize() < e.journalMax {
		return nil
	}
	if err := e.forget(ctx); err != nil {
		return err
	}
	e.journalMax = max(e.cfg.JournalMax, 2*e.cfg.State.JournalSize())
	return nil
}

// children lists what a block refers to. That of the commit before need not be read:
// its pack may be lost.
func (e *Engine) children(ctx context.Context, l link.Link) ([]link.Link, error) {
	if l.Codec == link.Raw {
		return nil, nil
	}
	if l == e.before.commit {
		return e.before.refs, nil
	}
	plain, err := e.reader.Get(ctx, l)
	if err != nil {
		return nil, err
	}
	return Children(l, plain)
}

// buryDead declares packs without live blocks dead, to their holders and in
// the account; and those that are in no account: a number was reserved for
// them, and some of their holders may have their shards, but the commit ended
// before enough of them did. None is on its way while this runs. With spare, packs stay in
// which a commit that failed has stored something for the next one.
func (e *Engine) buryDead(ctx context.Context, spare bool) error {
	watched, err := e.table.Watched()
	if err != nil {
		return err
	}
	dead := map[group.ID][]uint16{}
	var well []blocks.Watched
	for _, w := range watched {
		kept, err := e.isSpared(w, spare)
		if err != nil {
			return err
		}
		if kept {
			continue
		}
		switch lost := w.Pack == nil && w.Group.Founder == e.self() && !w.Group.Dead.Has(w.Number); {
		case lost, w.Pack != nil && w.Pack.Live == 0:
			dead[w.Group.ID] = append(dead[w.Group.ID], w.Number)
		case w.Pack == nil, !w.Pack.MostlyDead() && !e.isSmall(w.Group):
			well = append(well, w)
		}
	}
	if err := e.table.Unwatch(well); err != nil {
		return err
	}
	dead, unripe := e.ripe(dead)
	e.noteWaiting(watched)
	if err := e.leaveToHolders(unripe); err != nil {
		return err
	}
	if len(dead) == 0 {
		return nil
	}
	// What holders delete no power loss may make needed again.
	if err := e.cfg.State.Sync(); err != nil {
		return err
	}
	for id, numbers := range dead {
		numbers, err := e.unneeded(id, numbers)
		if err != nil {
			return err
		}
		if len(numbers) == 0 {
			continue
		}
		if err := e.buryIn(ctx, id, numbers); err != nil {
			return err
		}
	}
	return nil
}

// isSpared reports whether a pack without live blocks stays all the same: a commit that
// failed has stored something in it for the next one, or something that is needed was
// moved out of it, and no commit tells yet where that is.
func (e *Engine) isSpared(w blocks.Watched, spare bool) (bool, error) {
	if !spare || w.Pack == nil || w.Pack.Live > 0 {
		return false, nil
	}
	if fresh, err := e.table.HasOrphans(w); err != nil || fresh {
		return fresh, err
	}
	if moved, err := e.table.Moved(); err != nil || moved == 0 {
		return false, err
	}
	members, err := e.table.Members(w.Group.ID, w.Number)
	return slices.ContainsFunc(members, func(b blocks.Block) bool { return b.Refs > 0 }), err
}

// leaveToHolders lets go of the files here of packs that come to wait to be given up, but
// for those of which holders may have too little: somebody else may need them.
func (e *Engine) leaveToHolders(packs []packID) error {
	for _, p := range packs {
		_, known, err := e.table.Pack(p.group, p.number)
		safe := !known // too few holders took it, so nobody needs it
		if known && err == nil {
			safe, err = e.isSafe(p)
		}
		if safe && err == nil {
			err = e.packs.Remove(p.group, p.number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unneeded leaves out the packs that are still to be read, to give up what their
// blocks refer to, and those that have the last copy of something: these are looked at
// again after the next look around.
func (e *Engine) unneeded(id group.ID, numbers []uint16) (out []uint16, err error) {
	for _, n := range numbers {
		awaited, err := e.table.Awaited(id, n)
		if err != nil {
			return nil, err
		}
		last, err := e.hasLast(id, n)
		if err != nil {
			return nil, err
		}
		if last {
			e.waits.Store(true)
		}
		if !awaited && !last {
			out = append(out, n)
		}
	}
	return out, nil
}

// hasLast reports whether something that is needed is in a pack and was moved out of it,
// or is taken to be elsewhere, and holders have too little of the pack that has it then, or
// have not said yet that they do.
func (e *Engine) hasLast(id group.ID, n uint16) (bool, error) {
	if e.cfg.Lost == nil && e.cfg.OnlyHere == nil && e.cfg.Said == nil {
		return false, nil
	}
	members, err := e.table.Members(id, n)
	if err != nil {
		return false, err
	}
	safe := map[packID]bool{}
	for _, m := range members {
		if m.Refs == 0 || len(m.Places) == 0 {
			continue
		}
		home := packID{m.Places[0].Group, m.Places[0].Number}
		if safe[home] {
			continue
		}
		if safe[home], err = e.isSafe(home); err != nil || !safe[home] {
			return true, err
		}
	}
	return false, nil
}

// alone reports whether somebody found, after since, that nothing is published that
// this device does not know.
func (e *Engine) alone(since time.Time) bool { return e.cfg.Alone == nil || e.cfg.Alone(since) }

// ripe leaves out the packs that somebody may need who joined the drive. Who joins it
// after a commit was published begins with that or a later one. So it is enough that
// nobody else was there at some time after the commit that let a pack die. Those that
// come to wait for that are named, too: holders have to keep them, and this device, as long
// as these have them, needs no file of them.
func (e *Engine) ripe(dead map[group.ID][]uint16) (out map[group.ID][]uint16, unripe []packID) {
	e.mu.Lock()
	published, turns := e.published, e.turns
	e.mu.Unlock()
	if turns > e.reviewed+1 { // one may have come back to life, and died again
		e.waiting = nil
	}
	e.reviewed = turns
	out = map[group.ID][]uint16{}
	waiting := map[packID]time.Time{}
	for id, numbers := range dead {
		for _, n := range numbers {
			since, known := e.waiting[packID{id, n}]
			if !known {
				since = published
			}
			if e.alone(since) {
				out[id] = append(out[id], n)
				continue
			}
			waiting[packID{id, n}] = since
			if !known {
				unripe = append(unripe, packID{id, n})
			}
		}
	}
	e.waiting = waiting
	e.waits.Store(len(waiting) > 0)
	return out, unripe
}

// noteWaiting takes note of how much it is that waits to be given up. Packs that are in
// no account, as too few holders took them, do not count.
func (e *Engine) noteWaiting(watched []blocks.Watched) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.Waiting, e.progress.WaitingBytes = 0, 0
	for _, w := range watched {
		if _, waits := e.waiting[packID{w.Group.ID, w.Number}]; waits && w.Pack != nil {
			e.progress.Waiting++
			e.progress.WaitingBytes += int64(w.Group.ShardSize()) * int64(w.Pack.Acked.Count())
		}
	}
}

// lately is how old a look around may be that is taken to be still true, where a
// mistake costs room alone.
const lately = 30 * time.Minute

// aloneLately reports whether it was found lately, by the clock on the wall: the
// computer may have slept.
func (e *Engine) aloneLately() bool { return e.alone(e.now().Round(0).Add(-lately)) }

// buryIn declares packs of a group dead, but for those that blocks left a lost pack for
// since it was found that nothing is needed of them.
func (e *Engine) buryIn(ctx context.Context, id group.ID, numbers []uint16) error {
	var dead []uint16
	g, err := e.change(ctx, id, func(row *group.Group) error {
		for _, n := range numbers {
			p, _, err := e.table.Pack(id, n)
			if err != nil {
				return err
			}
			if p.Live == 0 {
				row.Dead.Add(n)
				dead = append(dead, n)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if _, err := e.cfg.Sink.Lease(ctx, g, e.LeaseOf(g)); err != nil {
		// Holders that are away learn it when they are back: their statements
		// name the lease that they know.
		e.cfg.Log.Info("some holders do not know yet what was deleted", "err", err)
	}
	for _, n := range dead {
		if err := e.table.Bury(id, n); err != nil {
			return err
		}
		if err := e.packs.Remove(id, n); err != nil {
			return err
		}
	}
	return nil
}

// Children lists the blocks that a block refers to, whatever it is.
func Children(l link.Link, plain []byte) ([]link.Link, error) {
	if l.Codec != link.CBOR {
		return dag.Refs(l.Codec, plain)
	}
	if c, err := commit.Parse(plain); err == nil {
		return c.Refs()
	}
	if _, err := blockindex.Decode(plain); err == nil {
		return nil, nil // places are no references
	}
	if _, err := commit.DecodeGroups(plain); err == nil {
		return nil, nil
	}
	if pieces, err := commit.DecodePieces(plain); err == nil {
		return commit.Links(pieces), nil
	}
	return dag.Refs(l.Codec, plain)
}
