package swarm

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
)

// ReadRange returns n bytes at off of a pack, proved against its manifest.
func (s *Swarm) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	if off < 0 || n < 0 || n > ref.Class.Size() || off > ref.Class.Size()-n || !ref.Coding.Valid(ref.Class) {
		return nil, fmt.Errorf("range %d+%d of a pack of %v: outside", off, n, ref.Class)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.c.Timeout, errTimeout)
	defer cancel()
	m, err := s.Manifest(ctx, ref)
	if err != nil {
		return nil, expired(ctx, err)
	}
	pieces := cut(m, off, n)
	if len(pieces) == 1 {
		b, err := s.readPiece(ctx, ref, m, pieces[0])
		return b, expired(ctx, err)
	}
	out := make([]byte, n)
	errs := make([]error, len(pieces))
	var wg sync.WaitGroup
	for i, p := range pieces {
		wg.Go(func() {
			b, err := s.readPiece(ctx, ref, m, p)
			copy(out[p.at:], b)
			errs[i] = err
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, expired(ctx, err)
		}
	}
	return out, nil
}

// errTimeout is the cause of a context that ended by a deadline of ours.
var errTimeout = errors.New("the time for a read is over")

// expired tells a deadline of ours, which holders were too slow for, from one
// of the caller's.
func expired(ctx context.Context, err error) error {
	if err != nil && context.Cause(ctx) == errTimeout && errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("%w in time", ErrUnreachable)
	}
	return err
}

// piece is the part of a range that lies in one data shard.
type piece struct {
	slot   uint8
	off, n int // in the shard
	at     int // in the range
}

// cut divides a range of a pack among its data shards.
func cut(m *group.Manifest, off, n int) []piece {
	size := m.ShardSize()
	var out []piece
	for at := 0; at < n; {
		slot, in := (off+at)/size, (off+at)%size
		take := min(n-at, size-in)
		out = append(out, piece{uint8(slot), in, take, at})
		at += take
	}
	return out
}

// readPiece reads a piece from its holder or, should that be slow, gone or
// wrong, rebuilds it from the same range of others.
func (s *Swarm) readPiece(ctx context.Context, ref group.PackRef, m *group.Manifest, p piece) (b []byte, err error) {
	err = s.asking(ctx, ref, func(from holders) (err error) {
		b, err = s.gather(ctx, m, p, from)
		return err
	})
	return b, err
}

// asking calls fn with the holders of a pack. Should it fail, slots may have
// moved since the table was written: then it calls it with those too that are
// found by asking around.
func (s *Swarm) asking(ctx context.Context, ref group.PackRef, fn func(holders) error) error {
	from, err := s.holdersOf(ctx, ref, false)
	if err != nil {
		return err
	}
	err = fn(from)
	if err == nil || ctx.Err() != nil || s.c.Finder == nil {
		return err
	}
	more, ferr := s.holdersOf(ctx, ref, true)
	if ferr != nil || more.count() == from.count() && more.silent == 0 {
		return err
	}
	return fn(more)
}

// gathering is one piece on its way.
type gathering struct {
	s      *Swarm
	m      *group.Manifest
	p      piece
	from   int // the range that is asked for, in whole units
	to     int
	ends   chan gathered
	queue  []source // not asked yet, in order
	flying int
	direct map[group.PeerKey]time.Time // of those flying, the ones asked for the piece itself, and since when

	have    map[uint8][]byte
	failed  map[uint8]error
	silent  int            // holders whose slots nobody knows
	absent  int            // slots whose every holder said that it has no such shard
	maybe   map[uint8]bool // slots with a holder that did not say so
	pending map[uint8]int
}

// newGathering returns one that has asked nobody yet.
func (s *Swarm) newGathering(m *group.Manifest, p piece, from holders) *gathering {
	g := &gathering{s: s, m: m, p: p, silent: from.silent, ends: make(chan gathered, from.count()), direct: map[group.PeerKey]time.Time{},
		have: map[uint8][]byte{}, failed: map[uint8]error{}, maybe: map[uint8]bool{}, pending: map[uint8]int{}}
	g.from, g.to = wire.Align(m.ShardSize(), p.off, p.n)
	g.line(from.of)
	return g
}

type source struct {
	slot uint8
	peer group.PeerKey
}

type gathered struct {
	source
	b   []byte
	err error
}

// gather asks for the piece: its own slot first, the others when that fails or
// does not answer soon. It ends with the piece itself or with k of the others.
func (s *Swarm) gather(ctx context.Context, m *group.Manifest, p piece, from holders) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := s.newGathering(m, p, from)
	if own := from.of[p.slot]; len(own) > 0 && !s.shuns(own[0]) {
		g.ask(ctx, 1)
	} else {
		g.ask(ctx, int(m.Coding.K))
	}
	hedge := time.NewTimer(s.c.Hedge)
	defer hedge.Stop()
	for {
		if b, ok, err := g.result(); ok || err != nil {
			g.overtaken()
			return b, err
		}
		if g.flying == 0 && len(g.queue) == 0 {
			return nil, g.why(ctx)
		}
		select {
		case e := <-g.ends:
			g.took(e)
			if e.err != nil || e.slot != p.slot {
				g.ask(ctx, g.wanting())
			}
		case <-hedge.C:
			g.ask(ctx, max(1, g.wanting()))
			hedge.Reset(s.c.Hedge)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// line puts those to be asked in order: the piece's own slot, then the others,
// those that failed lately last.
func (g *gathering) line(of map[uint8][]group.PeerKey) {
	var later []source
	add := func(slot uint8) {
		for _, p := range of[slot] {
			switch {
			case g.s.shuns(p):
				later = append(later, source{slot, p})
			default:
				g.queue = append(g.queue, source{slot, p})
			}
			g.pending[slot]++
		}
	}
	add(g.p.slot)
	for slot := range g.m.Coding.N {
		if slot != g.p.slot {
			add(slot)
		}
	}
	g.queue = append(g.queue, later...)
}

// wanting is how many more to ask so that k of the others could complete the
// piece without the holder of the piece itself, which may be a slow one.
func (g *gathering) wanting() int {
	return max(0, int(g.m.Coding.K)-len(g.have)-(g.flying-len(g.direct)))
}

// ask asks the next n of the line.
func (g *gathering) ask(ctx context.Context, n int) {
	for ; n > 0 && len(g.queue) > 0; n-- {
		src := g.queue[0]
		g.queue = g.queue[1:]
		if _, ok := g.have[src.slot]; ok {
			n++
			continue
		}
		g.flying++
		begin := g.s.c.Now()
		if src.slot == g.p.slot {
			g.direct[src.peer] = begin
		}
		go func() {
			b, err := g.s.c.Holders.Get(ctx, src.peer, g.m, src.slot, g.from, g.to-g.from)
			if ctx.Err() == nil || err == nil {
				g.s.note(src.peer, err, g.s.c.Now().Sub(begin))
			}
			g.ends <- gathered{src, b, err}
		}()
	}
}

func (g *gathering) took(e gathered) {
	g.flying--
	delete(g.direct, e.peer)
	g.pending[e.slot]--
	if e.err == nil {
		g.have[e.slot] = e.b
		g.maybe[e.slot] = true
		return
	}
	g.failed[e.slot] = e.err
	if !errors.Is(e.err, client.ErrAbsent) && !errors.Is(e.err, client.ErrLied) {
		g.maybe[e.slot] = true
	}
	if g.pending[e.slot] == 0 && !g.maybe[e.slot] {
		g.absent++
	}
}

// overtaken has those asked last for a while that had the piece itself, and yet
// were slower than k others that were asked after them.
func (g *gathering) overtaken() {
	if _, ok := g.have[g.p.slot]; ok {
		return
	}
	for p, since := range g.direct {
		if g.s.c.Now().Sub(since) >= g.s.c.Hedge {
			g.s.shun(p)
		}
	}
}

// result returns the piece if it is complete.
func (g *gathering) result() ([]byte, bool, error) {
	b, ok := g.have[g.p.slot]
	if !ok {
		if len(g.have) < int(g.m.Coding.K) {
			return nil, false, nil
		}
		shards := make([][]byte, g.m.Coding.N)
		want := make([]bool, g.m.Coding.N)
		for slot, have := range g.have {
			shards[slot] = have
		}
		want[g.p.slot] = true
		if err := g.m.Coding.Reconstruct(shards, want); err != nil {
			return nil, false, err
		}
		b = shards[g.p.slot]
	}
	return b[g.p.off-g.from:][:g.p.n:g.p.n], true, nil
}

// why says what is missing, after everybody was asked.
func (g *gathering) why(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err // the last to fail did so because of this
	}
	k, n := int(g.m.Coding.K), int(g.m.Coding.N)
	kind := ErrUnreachable
	if n-g.absent+g.silent < k {
		kind = ErrLost
	}
	var last error
	for _, err := range g.failed {
		last = err
	}
	return fmt.Errorf("%w: %d shards are needed, %d of %d answer, %d are missing (%w)",
		kind, k, len(g.have), n, n-len(g.have), orNone(last))
}

// noSlot is the slot of no piece: whole shards are wanted, whichever come.
const noSlot = erasure.MaxShards

// ReadShards fetches whole shards of a pack from any k holders, for rebuilding
// others: the result has k or more of the n, each checked against its root.
func (s *Swarm) ReadShards(ctx context.Context, ref group.PackRef) (m *group.Manifest, shards [][]byte, err error) {
	if m, err = s.Manifest(ctx, ref); err != nil {
		return nil, nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.c.Timeout+storeTime(m.ShardSize()*int(m.Coding.K)), errTimeout)
	defer cancel()
	err = s.asking(ctx, ref, func(from holders) (err error) {
		shards, err = s.gatherShards(ctx, m, from)
		return err
	})
	if err != nil {
		return nil, nil, expired(ctx, err)
	}
	return m, shards, nil
}

// gatherShards asks for shards until it has k.
func (s *Swarm) gatherShards(ctx context.Context, m *group.Manifest, from holders) ([][]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	g := s.newGathering(m, piece{slot: noSlot, n: m.ShardSize()}, from)
	g.ask(ctx, int(m.Coding.K))
	for len(g.have) < int(m.Coding.K) {
		if g.flying == 0 && len(g.queue) == 0 {
			return nil, g.why(ctx)
		}
		select {
		case e := <-g.ends:
			g.took(e)
			g.ask(ctx, g.wanting())
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	shards := make([][]byte, m.Coding.N)
	for slot, b := range g.have {
		shards[slot] = b
	}
	return shards, nil
}

// Rebuild returns one shard of a pack, built from any k others and checked
// against the manifest.
func (s *Swarm) Rebuild(ctx context.Context, ref group.PackRef, slot uint8) ([]byte, error) {
	m, shards, err := s.ReadShards(ctx, ref)
	if err != nil {
		return nil, err
	}
	return rebuilt(m, shards, slot)
}

func rebuilt(m *group.Manifest, shards [][]byte, slot uint8) ([]byte, error) {
	if shards[slot] == nil {
		want := make([]bool, len(shards))
		want[slot] = true
		if err := m.Coding.Reconstruct(shards, want); err != nil {
			return nil, err
		}
	}
	if erasure.RootOf(shards[slot]) != m.Roots[slot] {
		return nil, fmt.Errorf("shard %d of pack %d of group %v does not have its root when rebuilt", slot, m.Number, m.Group)
	}
	return shards[slot], nil
}
