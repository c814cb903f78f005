package writeback

import (
	"context"

	"skep/cache/blocks"
	"skep/chunker/block"
	"skep/chunker/group"
)

// foldSome moves the live blocks of mostly dead packs, and of small ones where
// many have gathered, into new packs. The old ones die with the next commit
// that is published.
func (e *Engine) foldSome(ctx context.Context) error {
	if counted, err := e.table.Counted(); err != nil || !counted || !e.aloneLately() {
		return err
	}
	chosen, err := e.chooseFolds()
	if err != nil || len(chosen) == 0 {
		return err
	}
	p := newPacker(ctx, e)
	for unread := 0; unread < mostUnread && len(chosen) > 0; chosen = chosen[1:] {
		pk := chosen[0]
		if err := e.fold(ctx, p, pk); err != nil {
			e.cfg.Log.Info("a pack is folded another time", "group", pk.Group, "number", pk.Number, "err", err)
			e.unfolded[packID{pk.Group, pk.Number}] = e.now().Add(unreadRest)
			unread++
		}
	}
	return p.flush()
}

type packID struct {
	group  group.ID
	number uint16
}

// rests reports whether a pack could not be read a short time ago.
func (e *Engine) rests(p blocks.Pack) bool {
	id := packID{p.Group, p.Number}
	until, ok := e.unfolded[id]
	if ok && !e.now().Before(until) {
		delete(e.unfolded, id)
		return false
	}
	return ok
}

// chooseFolds picks the packs to fold, within the budget.
func (e *Engine) chooseFolds() ([]blocks.Pack, error) {
	watched, err := e.table.Watched()
	if err != nil {
		return nil, err
	}
	small := map[groupKind][]blocks.Pack{}
	var chosen []blocks.Pack
	budget := uint64(foldBudget)
	take := func(p blocks.Pack) {
		if p.Live <= budget {
			budget -= p.Live
			chosen = append(chosen, p)
		}
	}
	for _, w := range watched {
		switch k := (groupKind{w.Group.Class, w.Group.Kind}); {
		case w.Pack == nil || w.Pack.Live == 0 || e.rests(*w.Pack):
		case w.Pack.MostlyDead():
			take(*w.Pack)
		case e.isSmall(w.Group):
			small[k] = append(small[k], *w.Pack)
		}
	}
	for _, packs := range small {
		if len(packs) < smallPacks {
			continue
		}
		for _, p := range packs {
			take(p)
		}
	}
	return chosen, nil
}

// isSmall reports whether the packs of a group are folded when many have gathered.
func (e *Engine) isSmall(g group.Group) bool { return g.Class+2 <= e.classOf(g.Kind) }

// fold puts the live blocks whose home a pack is into others.
func (e *Engine) fold(ctx context.Context, p *packer, pk blocks.Pack) error {
	members, err := e.table.Members(pk.Group, pk.Number)
	if err != nil {
		return err
	}
	for _, m := range members {
		home := m.Places[0].Group == pk.Group && m.Places[0].Number == pk.Number
		if m.Refs == 0 || !home {
			continue
		}
		ct, err := e.reader.Ciphertext(ctx, m.Link)
		if err != nil {
			return err
		}
		if err := p.add(ctx, block.Sealed{Link: m.Link, Tag: m.Tag, Ciphertext: ct}); err != nil {
			return err
		}
	}
	return nil
}
