package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
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

	ends   chan gathered
	over   chan struct{} // closed when nobody reads ends any more
	queue  []source      // not asked yet, in order
	lined  bool          // all that the table names are in it, or were
	flying map[source]*flight
	rounds int // of asking more, since somebody answered
	scouts int // asked because somebody was late, and it may have been our own line

	have   map[uint8][]byte
	fitted bool            // the piece's own is here, and fits
	no     map[source]bool // holders that said, or showed, that they have no such shard
	silent int             // further ones, whose slots nobody knows
	last   error           // of a holder
	known  map[source]bool
}

type source struct {
	slot uint8
	peer group.PeerKey
}

// flight is a holder that was asked and has not answered.
type flight struct {
	begin time.Time
	due   time.Time // until when it is waited for
	late  bool
	drop  func()       // ends it
	mute  bool         // it was ended as nothing came at all
	first atomic.Int64 // nanoseconds until the first bytes
	got   atomic.Int64 // bytes
}

type gathered struct {
	source
	b      []byte
	fitted bool
	err    error
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

// atFirst is how many to ask at first: the holder of the piece alone, or k if
// that failed lately or any are welcome.
func (g *gathering) atFirst() int {
	if !g.lined {
		return 1
	}
	return int(g.m.Coding.K)
}

// wanting is how many more to ask so that k could complete the piece without
// those that are late, and without the holder of the piece itself, which may
// become so.
func (g *gathering) wanting() int {
	n := int(g.m.Coding.K) - len(g.have)
	for src, f := range g.flying {
		if !f.late && src.slot != g.p.slot {
			n--
		}
	}
	return max(0, n)
}

// next is how long from now to look who is late.
func (g *gathering) next() time.Duration {
	now, next := g.s.c.Now(), longestHedge
	for _, f := range g.flying {
		if f.late {
			next = min(next, g.wait()/2)
		} else {
			next = min(next, f.due.Sub(now))
		}
	}
	return max(0, next)
}

// wait is how long one holder is waited for before another is asked beside it.
func (g *gathering) wait() time.Duration { return hedge(g.usual) }

// muteTime is how long somebody may say nothing at all while there are others to
// be asked: then he is given up, to make room for them.
const muteTime = 5 * time.Second

// beside says how many more to ask because somebody is late: as many as can do
// without him, and twice as many each time until somebody answers. While our own line is busy that may be the reason, and everything
// asked for more would make it worse: then one goes ahead for all reads, to see,
// and is waited for longer each time.
func (g *gathering) beside() int {
	g.lineUp()
	g.usual = g.s.usual(g.others(), int(g.m.Coding.K), g.to-g.from)
	now := g.s.c.Now()
	busy, late := g.s.line.busy(now), false
	for _, f := range g.flying {
		f.due = later(f.due, f.begin.Add(g.wait()))
		f.late = !now.Before(f.due) && !g.flows(f, now)
		late = late || f.late
		if f.late && !busy && len(g.queue) > 0 && f.got.Load() == 0 && now.Sub(f.begin) >= muteTime {
			f.mute = true
			f.drop()
		}
	}
	switch {
	case !late || len(g.queue) == 0:
		return 0
	case !busy:
		g.rounds++
		return g.wanting() << min(g.rounds-1, 8)
	case g.wanting() > 0 && g.s.mayScout(g.patience(g.scouts+1)):
		g.scouts++
		return 1
	}
	return 0
}

// patience is how long one is waited for that was asked after so many scouts.
func (g *gathering) patience(scouts int) time.Duration {
	return g.wait() * time.Duration(max(1, scouts))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// flows puts off when an answer is due that is arriving, and will be here
// sooner than others that were asked now.
func (g *gathering) flows(f *flight, now time.Time) bool {
	got := int(f.got.Load())
	if got == 0 {
		return false
	}
	all := erasure.SliceSize(g.m.ShardSize(), g.from, g.to-g.from)
	gone := now.Sub(f.begin)
	left := time.Duration(float64(gone) * float64(max(0, all-got)) / float64(got))
	if left > g.usual {
		return false
	}
	f.due = now.Add(max(left, shortestHedge))
	return true
}

// ask asks the next n of the line.
func (g *gathering) ask(ctx context.Context, n int) {
	for ; n > 0; n-- {
		src, ok := g.pop()
		if !ok {
			return
		}
		begin := g.s.c.Now()
		f := &flight{begin: begin, due: begin.Add(g.patience(g.scouts))}
		g.flying[src] = f
		one, drop := context.WithCancel(ctx)
		f.drop = drop
		go g.fetch(one, src, f)
	}
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

// fetch asks one holder for the range.
func (g *gathering) fetch(ctx context.Context, src source, f *flight) {
	s, now := g.s, g.s.c.Now
	watched := client.Watched(ctx, func(n int) {
		f.first.CompareAndSwap(0, int64(now().Sub(f.begin)))
		f.got.Add(int64(n))
		s.line.came(n, now())
	})
	b, fitted, err := g.get(watched, src, f)
	took := now().Sub(f.begin)
	if ctx.Err() == nil || err == nil {
		s.note(src.peer, err, took)
	}
	if err == nil {
		first := time.Duration(f.first.Load())
		if first == 0 {
			first = took
		}
		s.measured(src.peer, g.to-g.from, first, took, true)
	}
	select {
	case g.ends <- gathered{src, b, fitted, err}:
	case <-g.over:
	}
}

// get returns the range, proved or, where the caller knows the piece, fitting.
// Bytes that do not fit are asked for again with proof: a holder that proves
// others has lied, one whose disk altered them finds that out itself.
func (g *gathering) get(ctx context.Context, src source, f *flight) (b []byte, fitted bool, err error) {
	holders, n := g.s.c.Holders, g.to-g.from
	if g.fits == nil || src.slot != g.p.slot {
		b, err = holders.Get(ctx, src.peer, g.m, src.slot, g.from, n)
		return b, false, err
	}
	bare, err := holders.GetBare(ctx, src.peer, g.m, src.slot, g.from, n)
	if err != nil || g.fits(g.within(bare)) {
		return bare, err == nil, err
	}
	f.got.Store(0) // nothing of what counts has come
	b, err = holders.Get(ctx, src.peer, g.m, src.slot, g.from, n)
	if err == nil && !bytes.Equal(b, bare) {
		g.s.note(src.peer, errTwoFaced, 0)
	}
	return b, false, err
}

// errTwoFaced says that a holder sent other bytes without proof than with it.
var errTwoFaced = fmt.Errorf("%w: other bytes without proof than with it", client.ErrLied)

// within is the piece in the range that was asked for.
func (g *gathering) within(b []byte) []byte { return b[g.p.off-g.from:][:g.p.n:g.p.n] }

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
		g.fitted = g.fitted || e.fitted
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

// overtaken has those asked last for a while that were late and yet slower than
// all that was needed without them.
func (g *gathering) overtaken() {
	now := g.s.c.Now()
	for src, f := range g.flying {
		if !f.late {
			continue
		}
		g.s.shun(src.peer)
		first := time.Duration(f.first.Load())
		if first == 0 {
			first = now.Sub(f.begin)
		}
		g.s.measured(src.peer, g.to-g.from, first, now.Sub(f.begin), false)
	}
}

// cut is the end of a gathering whose context has ended.
func (g *gathering) cut(ctx context.Context) error {
	if !gaveUp(ctx) {
		return ctx.Err()
	}
	g.last = context.Cause(ctx)
	e := g.counts()
	e.Kind = ErrUnreachable // not everybody was asked
	return e
}

// missing says what is missing after everybody was asked.
func (g *gathering) missing(around *around) error {
	if len(g.known) == 0 {
		return around.none()
	}
	e := g.counts()
	if e.Of-e.Lost+g.silent < e.Needed {
		e.Kind = ErrLost
	}
	return e
}

// counts counts what is missing.
func (g *gathering) counts() *MissingError {
	e := &MissingError{Kind: ErrUnreachable, Needed: int(g.m.Coding.K), Of: int(g.m.Coding.N),
		Answered: len(g.have), Lost: g.lost(), Err: orNone(g.last)}
	e.Unreachable = e.Of - e.Answered - e.Lost
	return e
}

// lost is how many slots have holders, and none that may have their shard.
func (g *gathering) lost() (n int) {
	asked, no := map[uint8]int{}, map[uint8]int{}
	for src := range g.known {
		asked[src.slot]++
	}
	for src := range g.no {
		no[src.slot]++
	}
	for slot, of := range asked {
		if _, ok := g.have[slot]; !ok && no[slot] == of {
			n++
		}
	}
	return n
}
