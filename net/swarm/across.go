package swarm

import (
	"bytes"
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"skep/chunker/group"
)

// across is a range that lies in several shards, on its way.
//
// All pieces but the last end where their shard does, and all but the first
// begin where it does: so they meet, although each is asked for in whole units.
type across struct {
	s      *Swarm
	pieces []*gathering
	lead   int // how much comes before the range, in whole units
	room   func(n int) []byte
	whole  []byte // what holders who are asked without proof are to write to, end to end
}

// newAcross returns one that has asked nobody yet.
func (s *Swarm) newAcross(ref group.PackRef, m *group.Manifest, pieces []piece, heard func()) *across {
	a := &across{s: s}
	for _, p := range pieces {
		a.pieces = append(a.pieces, s.newGathering(ref, m, p, heard))
	}
	if len(pieces) > 0 {
		a.lead = pieces[0].off - a.pieces[0].from
	}
	return a
}

// bare has the pieces asked for without proof, and brought into a room, unless
// that is nil. Only all of them together can be looked at.
func (a *across) bare(room func(n int) []byte) {
	a.room = room
	a.whole = a.memory()
	for _, g := range a.pieces {
		g.fits = func([]byte) bool { return true }
		g.room = once(a.whole[a.lead+g.p.at+g.from-g.p.off:][:g.to-g.from])
	}
}

// memory is room for all pieces, in whole units.
func (a *across) memory() []byte {
	n := 0
	for _, g := range a.pieces {
		n += g.to - g.from
	}
	if a.room != nil {
		if b := a.room(n); b != nil {
			return b
		}
	}
	return make([]byte, n)
}

// once gives b to the first who asks, and nothing to others: he may still write
// to it.
func once(b []byte) func(int) []byte {
	var given atomic.Bool
	return func(int) []byte {
		if given.Swap(true) {
			return nil
		}
		return b
	}
}

// read returns the range, of n bytes.
func (a *across) read(ctx context.Context, n int) ([]byte, error) {
	all, ctx := errgroup.WithContext(ctx)
	for _, g := range a.pieces {
		all.Go(func() error { return g.gather(ctx) })
	}
	if err := all.Wait(); err != nil {
		return nil, err
	}
	whole, err := a.joined()
	if err != nil {
		return nil, err
	}
	return whole[a.lead:][:n:n], nil
}

// joined is memory with all pieces, which have come. That is other memory than
// they were to come to if one is elsewhere: it was proved or rebuilt, or it is
// from another holder than the one who was asked first and may still write there.
func (a *across) joined() ([]byte, error) {
	parts := make([][]byte, len(a.pieces))
	inPlace := a.whole != nil
	for i, g := range a.pieces {
		b, err := g.piece()
		if err != nil {
			return nil, err
		}
		parts[i] = b
		inPlace = inPlace && &b[0] == &a.whole[a.lead+g.p.at]
	}
	if inPlace {
		return a.whole, nil
	}
	other := a.memory()
	for i, g := range a.pieces {
		copy(other[a.lead+g.p.at:], parts[i])
	}
	return other, nil
}

// blame notes the holders that proved other bytes than they sent without proof.
func (a *across) blame(proved *across) {
	for i, g := range a.pieces {
		p := proved.pieces[i]
		b, ok := p.have[p.p.slot]
		if ok && g.fitted && g.by == p.by && !bytes.Equal(g.have[g.p.slot], b) {
			a.s.note(g.by, errTwoFaced, 0)
		}
	}
}
