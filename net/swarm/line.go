package swarm

import (
	"slices"
	"time"

	"skep/chunker/group"
)

// own is the holder of the piece itself, if the table names one that did not
// fail lately.
func (g *gathering) own() (source, bool) {
	if int(g.p.slot) >= len(g.ref.Slots) {
		return source{}, false
	}
	own := source{g.p.slot, g.ref.Slots[g.p.slot]}
	return own, !own.peer.IsZero() && !g.s.shuns(own.peer)
}

// lineUp puts all that the table names in the line, once: most pieces come from
// their own holder, and need no others.
func (g *gathering) lineUp() {
	if g.lined {
		return
	}
	g.lined = true
	g.line(named(g.ref))
	g.usual = g.s.usual(g.others(), int(g.m.Coding.K), g.to-g.from)
}

// line puts those to be asked in order: the piece's own slot, then the others,
// the fastest before those that take more than twice as long, and those that
// failed lately last. Those that were in it before are passed over, and go
// behind those that have just been found. Of several that claim one slot, all
// but one go behind those of other slots. It reports whether there are new ones.
func (g *gathering) line(from holders) (grew bool) {
	g.silent = max(g.silent, from.silent)
	var first, later []source
	rank := map[source]int{}
	for slot := range g.m.Coding.N {
		for i, p := range from.of[slot] {
			src := source{slot, p}
			if g.known[src] {
				continue
			}
			g.known[src] = true
			rank[src] = i<<8 + doublings(g.s.expect(p, g.to-g.from))
			if slot == g.p.slot {
				rank[src] = -1
			}
			if g.s.shuns(p) {
				later = append(later, src)
				continue
			}
			first = append(first, src)
		}
	}
	byRank := func(a, b source) int { return rank[a] - rank[b] }
	slices.SortStableFunc(first, byRank)
	slices.SortStableFunc(later, byRank)
	g.queue = slices.Concat(first, g.queue, later)
	return len(first)+len(later) > 0
}

// doublings is how often a millisecond doubles to make a duration.
func doublings(d time.Duration) (n int) {
	for d >= 2*time.Millisecond {
		d /= 2
		n++
	}
	return n
}

// others are the holders of other slots than the piece's own.
func (g *gathering) others() (out []group.PeerKey) {
	for src := range g.known {
		if src.slot != g.p.slot {
			out = append(out, src.peer)
		}
	}
	return out
}

// pop takes the first out of the line whose slot is not here, nor on its way.
func (g *gathering) pop() (source, bool) {
	for i := 0; i < len(g.queue); i++ {
		src := g.queue[i]
		if g.coming(src.slot) {
			continue
		}
		g.queue = slices.Delete(g.queue, i, i+1)
		if _, here := g.have[src.slot]; !here {
			return src, true
		}
		i--
	}
	return source{}, false
}

// coming reports whether somebody was asked for a slot who is not late.
func (g *gathering) coming(slot uint8) bool {
	for src, f := range g.flying {
		if src.slot == slot && !f.late {
			return true
		}
	}
	return false
}
