package plan

import (
	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Frailty counts how safe packs are, by their coding and the shards that are there. The
// zero Frailty has counted none.
type Frailty struct {
	Weak  int     // are clearly less safe than they would be with the peers that are there now
	Frail int     // survive the loss of no holder
	Loss  float64 // chance that at one instant the worst of them cannot be read

	weak map[coded]bool // as far as it was asked for
}

// coded is what decides how weak a pack is.
type coded struct {
	class  erasure.Class
	kind   group.Kind
	coding erasure.Coding
}

// Judge tells whether packs of a class and kind in a coding are weak, and the chance that at
// one instant such a pack cannot be read.
type Judge func(erasure.Class, group.Kind, erasure.Coding) (weak bool, loss float64)

// Add counts a pack of a group of which so many shards are there. Where more than one may be missing,
// repair brings them in time. It asks once for each coding, as there are many packs and few
// codings; judge must tell the same as long as f counts.
func (f *Frailty) Add(g group.Group, shards int, judge Judge) (weak, frail bool) {
	in := g.Coding
	if Survives(in) == 1 {
		in = in.Left(shards)
	}
	if weak = f.isWeak(coded{g.Class, g.Kind, in}, judge); weak {
		f.Weak++
	}
	if frail = Survives(in) == 0; frail {
		f.Frail++
	}
	return weak, frail
}

func (f *Frailty) isWeak(c coded, judge Judge) bool {
	weak, known := f.weak[c]
	if known {
		return weak
	}
	if f.weak == nil {
		f.weak = map[coded]bool{}
	}
	weak, loss := judge(c.class, c.kind, c.coding)
	f.weak[c], f.Loss = weak, max(f.Loss, loss)
	return weak
}
