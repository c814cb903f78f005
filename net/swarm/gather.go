package swarm

import (
	"context"
	"errors"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
)

// noSlot is the slot of no piece: whole shards are wanted, whichever come.
const noSlot = erasure.MaxShards

// gathering is one piece on its way, or any k shards of a pack.
type gathering struct {
	s     *Swarm
	ref   group.PackRef
	m     *group.Manifest
	p     piece
	heard func()
	from  int // the range that is asked for, in whole units
	to    int
	usual time.Duration // by when k others would have it here
	// fits reports whether a piece is the one that the caller knows; nil if he
	// cannot tell.
	fits func([]byte) bool
	room func(n int) []byte // for a piece that may fit; nil: fresh memory

	ends   chan gathered
	over   chan struct{} // closed when nobody reads ends any more
	queue  []source      // not asked yet, in order
	lined  bool          // all that the table names are in it, or were
	flying map[source]*flight
	rounds int // of asking more, since somebody answered
	scouts int // asked because somebody was late, and it may have been our own line

	have   map[uint8][]byte
	fitted bool            // the piece's own is here, and fits
	by     group.PeerKey   // from whom the piece's own is
	no     map[source]bool // holders that said, or showed, that they have no such shard
	silent int             // further ones, whose slots nobody knows
	last   error           // of a holder
	known  map[source]bool
}

type source struct {
	slot uint8
	peer group.PeerKey
}

// newGathering returns one that has asked nobody yet. heard is called with each
// answer.
func (s *Swarm) newGathering(ref group.PackRef, m *group.Manifest, p piece, heard func()) *gathering {
	g := &gathering{s: s, ref: ref, m: m, p: p, heard: heard, ends: make(chan gathered), over: make(chan struct{}), flying: map[source]*flight{},
		have: map[uint8][]byte{}, no: map[source]bool{}, known: map[source]bool{}}
	g.from, g.to = wire.Align(m.ShardSize(), p.off, p.n)
	g.usual = s.usually(g.to - g.from)
	if own, ok := g.own(); ok {
		g.known[own], g.queue = true, []source{own}
	} else {
		g.lineUp()
	}
	return g
}

// gather asks for the piece: its own slot first, the others when that fails or
// is late. It ends with the piece itself or with k of the others, or when
// nobody is left to ask.
func (g *gathering) gather(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer close(g.over)
	g.ask(ctx, g.atFirst())
	look := time.NewTimer(g.next())
	defer look.Stop()
	around := g.s.around(g.ref)
	defer around.leave()
	for !g.complete() {
		if len(g.flying)+len(g.queue) == 0 {
			g.lineUp()
		}
		if len(g.flying)+len(g.queue) == 0 {
			if around.over() {
				return g.missing(around)
			}
			around.begin()
		}
		select {
		case e := <-g.ends:
			if g.took(e) {
				g.lineUp()
				g.ask(ctx, g.wanting())
			}
		case <-look.C:
			g.ask(ctx, g.beside())
		case <-around.due():
			around.begin()
		case <-around.news():
			if g.line(around.holders()) || around.goesOn() {
				g.heard()
			}
			if len(g.flying) == 0 || len(g.ref.Slots) == 0 {
				g.ask(ctx, g.wanting())
			}
		case <-ctx.Done():
			return g.cut(ctx)
		}
		look.Reset(g.next())
	}
	g.overtaken()
	return nil
}

// took takes an answer, and reports whether others are to be asked at once: it
// is none, or it came in time from another slot, whose holders then are better.
func (g *gathering) took(e gathered) bool {
	f := g.flying[e.source]
	delete(g.flying, e.source)
	f.drop()
	if f.mute && e.err != nil {
		e.err = client.ErrUnreachable
		g.s.shun(e.peer)
	}
	if !errors.Is(e.err, client.ErrUnreachable) {
		g.heard()
	}
	if e.err == nil {
		g.have[e.slot] = e.b
		g.rounds = 0
		if e.slot == g.p.slot {
			g.fitted, g.by = e.fitted, e.peer
		}
		return e.slot != g.p.slot && g.s.c.Now().Sub(f.begin) <= g.wait()
	}
	g.last = e.err
	if errors.Is(e.err, client.ErrAbsent) || errors.Is(e.err, client.ErrLied) {
		g.no[e.source] = true
	}
	return true
}

// complete reports whether the piece is here, or k others are.
func (g *gathering) complete() bool {
	_, own := g.have[g.p.slot]
	return own || len(g.have) >= int(g.m.Coding.K)
}
