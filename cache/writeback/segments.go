package writeback

import (
	"context"
	"errors"
	"slices"

	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/link"
)

// indexShape is how the block index lies in a commit: how many entries a piece has
// at most, how many pieces of a segment the commit names itself, and how many a list
// does where there are more.
type indexShape struct{ piece, named, list int }

var wholeIndex = indexShape{piece: blockindex.MaxPiece, named: 16, list: 1024}

// segment is one of the index, with locators as they are now: folding may have moved
// blocks since it was written.
type segment struct {
	said   commit.Segment // as the commit said it
	pieces []commit.Piece
	unread error // why there are no pieces, if lists of them cannot be read
}

// segments gives the commit its index: the old segments, and one of what is
// new, merged with as many of the newest old ones as the policy says.
func (t *tailWriter) segments(c *commit.Commit, old *commit.Commit, oldAt commit.Locator) error {
	fresh, err := t.e.table.CountNew()
	if err != nil {
		return err
	}
	moved, err := t.e.table.Moved()
	if err != nil {
		return err
	}
	var segs []segment
	if old != nil {
		if segs, err = t.whereNow(old.Segments, oldAt); err != nil {
			return err
		}
	}
	if fresh > 0 {
		counts := make([]int, 0, len(segs)+1)
		for _, s := range segs {
			counts = append(counts, int(s.said.Count))
		}
		from := min(blockindex.MergeFrom(append(counts, fresh)), len(segs))
		useless := func(s segment) bool { // to somebody who recovers the drive
			return t.isLost(s) || s.unread != nil && moved != 0 // its lists may name places that are left
		}
		if slices.ContainsFunc(segs[:from], useless) {
			from = 0
		}
		if segs, err = t.merge(segs, from); err != nil {
			return err
		}
	}
	c.Segments, err = t.name(segs)
	return err
}

// merge makes one segment of what is new and of the segments from a position on. One
// that cannot be read stops no commit. The account has all that the index has, once
// references are counted, and takes the place of every segment; before that, the
// segments up to the one that cannot be read stay as they are.
func (t *tailWriter) merge(segs []segment, from int) ([]segment, error) {
	dead, err := t.deadPlaces()
	if err != nil {
		return nil, err
	}
	for whole := false; ; {
		in := []blockindex.Entries{t.e.table.Entries()}
		if !whole {
			in[0] = t.e.table.NewEntries()
			for at := from; at < len(segs); at++ {
				in = append(in, t.entriesOf(segs[at], at))
			}
		}
		s, err := t.write(blockindex.Merge(dead, in...))
		var unread *unreadSegment
		switch {
		case err == nil && s.said.Count == 0:
			return segs[:from:from], nil
		case err == nil:
			return append(segs[:from:from], s), nil
		case t.ctx.Err() != nil || !errors.As(err, &unread):
			return nil, err
		}
		t.e.cfg.Log.Info("a segment of the block index cannot be read", "err", unread.err)
		if whole, err = t.e.table.Counted(); err != nil {
			return nil, err
		}
		if from = unread.at + 1; whole {
			from = 0
		}
	}
}

// unreadSegment says that the segment at a position could not be read.
type unreadSegment struct {
	at  int
	err error
}

// Error gives the reason.
func (u *unreadSegment) Error() string { return u.err.Error() }

// write stores sorted entries as a new segment, piece by piece as they come.
func (t *tailWriter) write(entries blockindex.Entries) (s segment, err error) {
	out := &spill{t: t}
	s.said.Count, err = blockindex.Cut(entries, t.e.shape.piece, func(first link.Hash, plain []byte) error {
		s.pieces = append(s.pieces, commit.Piece{First: first})
		return out.add(plain, nil)
	})
	if err != nil {
		return s, err
	}
	at, err := out.end()
	for i, l := range at {
		s.pieces[i].At = l
	}
	return s, err
}

// name tells the commit of its segments. Of one with many pieces it names lists of
// them; one that is as it was before is found to be stored.
func (t *tailWriter) name(segs []segment) ([]commit.Segment, error) {
	out := make([]commit.Segment, len(segs))
	for i, s := range segs {
		switch {
		case s.unread != nil:
			out[i] = s.said
		case len(s.pieces) <= t.e.shape.named:
			out[i] = commit.Segment{Count: s.said.Count, Pieces: s.pieces}
		default:
			lists, err := t.lists(s.pieces)
			if err != nil {
				return nil, err
			}
			out[i] = commit.Segment{Count: s.said.Count, Lists: true, Pieces: lists}
		}
	}
	return out, nil
}

func (t *tailWriter) lists(pieces []commit.Piece) (out []commit.Piece, err error) {
	to := &spill{t: t}
	for part := range slices.Chunk(pieces, t.e.shape.list) {
		out = append(out, commit.Piece{First: part[0].First})
		if err := to.add(commit.EncodePieces(part), commit.Links(part)); err != nil {
			return nil, err
		}
	}
	at, err := to.end()
	for i, l := range at {
		out[i].At = l
	}
	return out, err
}

// whereNow reads which pieces old segments have, and brings all locators up to date.
func (t *tailWriter) whereNow(segs []commit.Segment, at commit.Locator) ([]segment, error) {
	out := make([]segment, len(segs))
	for i, s := range segs {
		named, err := t.locateAll(s.Pieces, at)
		if err != nil {
			return nil, err
		}
		said := commit.Segment{Count: s.Count, Lists: s.Lists, Pieces: named}
		pieces, unread := t.e.reader.Pieces(t.ctx, said, at)
		if pieces, err = t.locateAll(pieces, at); err != nil {
			return nil, err
		}
		out[i] = segment{said: said, pieces: pieces, unread: unread}
	}
	return out, nil
}

func (t *tailWriter) locateAll(pieces []commit.Piece, at commit.Locator) (out []commit.Piece, err error) {
	out = make([]commit.Piece, len(pieces))
	for i, p := range pieces {
		if p.At, err = t.e.locate(p.At.In(at)); err != nil {
			return nil, err
		}
		out[i] = p
	}
	return out, nil
}

// isLost reports whether a piece of a segment is in a lost pack, or cannot be found.
func (t *tailWriter) isLost(s segment) bool {
	lost := func(p commit.Piece) bool { return t.e.cfg.Lost != nil && t.e.cfg.Lost(p.At.Group, p.At.Number) }
	return slices.ContainsFunc(s.said.Pieces, lost) || slices.ContainsFunc(s.pieces, lost)
}

// entriesOf reads a segment, which has a position, piece by piece.
func (t *tailWriter) entriesOf(s segment, at int) blockindex.Entries {
	return func(yield func(blockindex.Entry, error) bool) {
		err := s.unread
		for _, p := range s.pieces {
			var entries []blockindex.Entry
			if entries, err = readPiece(t.ctx, t.e, p); err != nil {
				break
			}
			for _, e := range entries {
				if !yield(e, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(blockindex.Entry{}, &unreadSegment{at, err})
		}
	}
}

func readPiece(ctx context.Context, e *Engine, p commit.Piece) ([]blockindex.Entry, error) {
	plain, err := e.reader.At(ctx, p.At)
	if err != nil {
		return nil, err
	}
	return blockindex.Decode(plain)
}

// deadPlaces tells which places are in packs that are dead, or will be once the
// commit is out.
func (t *tailWriter) deadPlaces() (func(blockindex.Place) bool, error) {
	all, err := t.e.table.Groups()
	if err != nil {
		return nil, err
	}
	dead := make(map[group.ID]group.Bitmap, len(all))
	for _, g := range all {
		g.Dead.Union(t.idle[g.ID])
		dead[g.ID] = g.Dead
	}
	return func(p blockindex.Place) bool {
		d, listed := dead[p.Group]
		return !listed || d.Has(p.Number) // else its group was let go of
	}, nil
}
