package swarm

import (
	"context"
	"fmt"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// ReadRange returns n bytes at off of a pack, proved against its manifest. It
// ends when nothing has come for Config.Silence, or with Config.Timeout and the time for its
// bytes; what was missing then, a *MissingError says.
func (s *Swarm) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	b, _, err := s.ReadKnown(ctx, ref, off, n, nil, nil)
	return b, err
}

// ReadKnown is ReadRange for bytes of which the caller can tell by himself
// whether they are right. It saves proving and hashing where they come from the
// holders of their own slots. fits reports whether they are right; it alters
// nothing. If fitted is true, they passed it; if not, they are proved, and the
// caller has to look.
//
// room, unless it is nil, gives memory of n bytes for each holder that is asked so,
// or for all whose pieces make up the range. What fitted lies in one of these. All
// others may still be written to when ReadKnown has returned. Both functions may be called from several goroutines,
// also then.
func (s *Swarm) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(n int) []byte, fits func([]byte) bool) (b []byte, fitted bool, err error) {
	if off < 0 || n < 0 || n > ref.Class.Size() || off > ref.Class.Size()-n || !ref.Coding.Valid(ref.Class) {
		return nil, false, fmt.Errorf("range %d+%d of a pack of %v: outside", off, n, ref.Class)
	}
	ctx, heard, cancel := s.listen(ctx, ref.Group, s.c.Timeout+slowTime(n))
	defer cancel()
	m, err := s.Manifest(ctx, ref)
	if err != nil {
		return nil, false, counted(ctx, ref, err)
	}
	if pieces := cut(m, off, n); len(pieces) == 1 {
		b, fitted, err = s.readPiece(ctx, ref, m, pieces[0], room, fits, heard)
	} else {
		b, fitted, err = s.readAcross(ctx, ref, m, pieces, n, room, fits, heard)
	}
	return b, fitted, counted(ctx, ref, err)
}

// readAcross reads a range of n bytes that is in pieces: if it is known, without
// proof at first, and again with it if it does not fit.
func (s *Swarm) readAcross(ctx context.Context, ref group.PackRef, m *group.Manifest, pieces []piece, n int, room func(int) []byte, fits func([]byte) bool, heard func()) (b []byte, fitted bool, err error) {
	if fits == nil {
		b, err = s.newAcross(ref, m, pieces, heard).read(ctx, n)
		return b, false, err
	}
	known := s.newAcross(ref, m, pieces, heard)
	known.bare(room)
	b, err = known.read(ctx, n)
	if err != nil || fits(b) {
		return b, err == nil, err
	}
	proved := s.newAcross(ref, m, pieces, heard)
	b, err = proved.read(ctx, n)
	if err == nil {
		known.blame(proved)
	}
	return b, false, err
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
func (s *Swarm) readPiece(ctx context.Context, ref group.PackRef, m *group.Manifest, p piece, room func(int) []byte, fits func([]byte) bool, heard func()) (b []byte, fitted bool, err error) {
	g := s.newGathering(ref, m, p, heard)
	g.room, g.fits = room, fits
	if err := g.gather(ctx); err != nil {
		return nil, false, err
	}
	b, err = g.piece()
	return b, g.fitted, err
}

// piece returns the piece of a gathering that is complete.
func (g *gathering) piece() ([]byte, error) {
	b, ok := g.have[g.p.slot]
	if !ok {
		shards := g.shards()
		want := make([]bool, g.m.Coding.N)
		want[g.p.slot] = true
		if err := g.m.Coding.Reconstruct(shards, want); err != nil {
			return nil, err
		}
		b = shards[g.p.slot]
	}
	return g.within(b), nil
}

// shards are the ranges that have come, by slot.
func (g *gathering) shards() [][]byte {
	shards := make([][]byte, g.m.Coding.N)
	for slot, have := range g.have {
		shards[slot] = have
	}
	return shards
}

// ReadShards fetches whole shards of a pack from any k holders, for rebuilding
// others: the result has k or more of the n, each checked against its root. It
// ends as ReadRange does, but for the time that all of the shards may take.
func (s *Swarm) ReadShards(ctx context.Context, ref group.PackRef) (*group.Manifest, [][]byte, error) {
	size := ref.Coding.ShardSize(ref.Class)
	ctx, heard, cancel := s.listen(ctx, ref.Group, s.c.Timeout+slowTime(size*int(ref.Coding.K)))
	defer cancel()
	m, err := s.Manifest(ctx, ref)
	if err != nil {
		return nil, nil, counted(ctx, ref, err)
	}
	g := s.newGathering(ref, m, piece{slot: noSlot, n: size}, heard)
	if err := g.gather(ctx); err != nil {
		return nil, nil, counted(ctx, ref, err)
	}
	return m, g.shards(), nil
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
