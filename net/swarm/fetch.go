package swarm

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"skep/net/client"
)

// flight is a holder that was asked and has not answered.
type flight struct {
	begin time.Time
	due   time.Time // until when it is waited for
	late  bool
	drop  func()       // ends it
	mute  bool         // it was ended as nothing came at all
	first atomic.Int64 // nanoseconds until the first bytes
	last  atomic.Int64 // nanoseconds until the last ones so far
	got   atomic.Int64 // bytes
}

type gathered struct {
	source
	b      []byte
	fitted bool
	err    error
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

// fetch asks one holder for the range.
func (g *gathering) fetch(ctx context.Context, src source, f *flight) {
	s, now := g.s, g.s.c.Now
	watched := client.Watched(ctx, func(n int) {
		since := int64(now().Sub(f.begin))
		f.first.CompareAndSwap(0, since)
		f.last.Store(since)
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
	bare, err := holders.GetBare(ctx, src.peer, g.m, src.slot, g.from, n, g.room)
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
