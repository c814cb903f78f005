package writeback

import (
	"context"

	"skep/cache/blocks"
	"skep/chunker/block"
	"skep/chunker/erasure"
	"skep/chunker/group"
)

// foldSome moves the live blocks of mostly dead packs, and of small ones where
// many have gathered, into new packs. The old ones die with the next commit
// that is published.
func (e *Engine) foldSome(ctx context.Context) error {
	if counted, err := e.table.Counted(); err != nil || !counted {
		return err
	}
	chosen, err := e.chooseFolds()
	if err != nil || len(chosen) == 0 {
		return err
	}
	p := newPacker(ctx, e)
	for _, pk := range chosen {
		if err := e.fold(ctx, p, pk); err != nil {
			// A pack that cannot be read now is folded another time.
			e.cfg.Log.Info("a pack was not folded", "group", pk.Group, "number", pk.Number, "err", err)
		}
	}
	return p.flush()
}

// chooseFolds picks the packs to fold, within the budget.
func (e *Engine) chooseFolds() ([]blocks.Pack, error) {
	classes, err := e.classes()
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
	err = e.table.Packs(func(p blocks.Pack) bool {
		switch k := (groupKind{classes[p.Group], p.Kind}); {
		case p.Live == 0:
		case 2*p.Live < p.Total:
			take(p)
		case k.class+2 <= e.classOf(p.Kind):
			small[k] = append(small[k], p)
		}
		return budget > 0
	})
	for _, packs := range small {
		if len(packs) < smallPacks {
			continue
		}
		for _, p := range packs {
			take(p)
		}
	}
	return chosen, err
}

func (e *Engine) classes() (map[group.ID]erasure.Class, error) {
	all, err := e.table.Groups()
	out := make(map[group.ID]erasure.Class, len(all))
	for _, g := range all {
		out[g.ID] = g.Class
	}
	return out, err
}

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
		if err := p.add(block.Sealed{Link: m.Link, Tag: m.Tag, Ciphertext: ct}, nil); err != nil {
			return err
		}
	}
	return nil
}
