package writeback

import (
	"context"
	"slices"

	"skep/cache/blocks"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/group"
)

// foldWorth is from how many bytes on that folding would give back it is worth a
// commit by itself, which takes some room, too.
const foldWorth = 4 << 20

// foldFirst moves what a commit takes along, or what is worth one by itself, and
// reports whether a commit is needed.
func (e *Engine) foldFirst(ctx context.Context, cut *tree.Cut, needed bool) (bool, error) {
	if !needed && e.pace.isHurried() {
		e.strengthenNow()
	}
	if err := e.rescue(ctx); err != nil {
		return needed, err
	}
	if err := e.strengthen(ctx, needed && e.pace.isHurried()); err != nil {
		return needed, err
	}
	if needed && !e.tookNothing {
		return true, e.foldSome(ctx, group.Content, group.Metadata)
	}
	if e.pace.isHurried() { // all is out that somebody waits for
		e.foldLater()
		return e.isNeeded(cut)
	}
	pays, err := e.foldingPays()
	if err == nil && pays {
		err = e.foldSome(ctx, group.Content)
	}
	if err != nil {
		return false, err
	}
	return e.isNeeded(cut)
}

// foldingPays reports whether enough is to be had by folding for a commit of its own.
// Only packs of content count, and are folded for it: such a commit leaves none that is
// mostly dead, while each leaves some of metadata. So the drive comes to rest.
func (e *Engine) foldingPays() (bool, error) {
	if may, err := e.mayFold(); err != nil || !may {
		return false, err
	}
	watched, err := e.table.Watched()
	if err != nil {
		return false, err
	}
	var dead uint64
	for _, w := range watched {
		if p := w.Pack; p != nil && w.Group.Kind == group.Content && p.Live > 0 && p.MostlyDead() && !e.rests(*p) {
			dead += p.Total - p.Live
		}
	}
	return dead >= foldWorth, nil
}

// mayFold reports whether it is known what is needed, by anybody.
func (e *Engine) mayFold() (bool, error) {
	counted, err := e.table.Counted()
	return counted && e.aloneLately(), err
}

// foldSome moves the live blocks of mostly dead packs of some kinds, and of small
// ones where many have gathered, into new packs. The old ones die with the next commit
// that is published.
func (e *Engine) foldSome(ctx context.Context, kinds ...group.Kind) error {
	if may, err := e.mayFold(); err != nil || !may {
		return err
	}
	chosen, err := e.chooseFolds(kinds)
	if err != nil || len(chosen) == 0 {
		return err
	}
	_, err = e.move(ctx, newMover(ctx, e, false), chosen)
	if err != nil { // the commit is tried again soon, and is not to read all this each time
		for _, pk := range chosen {
			e.rest(pk)
		}
	}
	return err
}

// move moves the live blocks of packs into others, but for what cannot be read, and
// returns how many packs that were: they rest for some time.
func (e *Engine) move(ctx context.Context, p *packer, packs []blocks.Pack) (unread int, err error) {
	for _, pk := range packs {
		if unread >= mostUnread {
			break
		}
		if err := e.fold(ctx, p, pk); err != nil {
			e.cfg.Log.Info("a pack is moved another time", "group", pk.Group, "number", pk.Number, "err", err)
			e.rest(pk)
			unread++
		}
	}
	return unread, p.flush()
}

func (e *Engine) rest(p blocks.Pack) {
	e.unfolded[packID{p.Group, p.Number}] = e.now().Add(unreadRest)
}

type packID struct {
	group  group.ID
	number uint16
}

// rests reports whether a pack could not be folded a short time ago.
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
func (e *Engine) chooseFolds(kinds []group.Kind) ([]blocks.Pack, error) {
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
		case w.Pack == nil || w.Pack.Live == 0 || !slices.Contains(kinds, w.Group.Kind) || e.rests(*w.Pack):
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
