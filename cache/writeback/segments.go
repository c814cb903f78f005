package writeback

import (
	"fmt"
	"slices"

	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/group"
)

// segments gives the commit its index: the old segments, and one of what is
// new, merged with as many of the newest old ones as the policy says.
func (t *tailWriter) segments(c *commit.Commit, old *commit.Commit, oldAt commit.Locator) ([]blockindex.Entry, error) {
	fresh, err := t.e.table.NewEntries()
	if err != nil {
		return nil, err
	}
	var segs []commit.Segment
	if old != nil {
		segs = t.whereNow(old.Segments, oldAt)
	}
	if len(fresh) == 0 {
		c.Segments = segs
		return nil, nil
	}
	counts := make([]int, 0, len(segs)+1)
	for _, s := range segs {
		counts = append(counts, int(s.Count))
	}
	from := blockindex.MergeFrom(append(counts, len(fresh)))
	from, lists, err := t.toMerge(segs, min(from, len(segs)))
	if err != nil {
		return nil, err
	}
	lists = append(lists, fresh)
	dead, err := t.deadPlaces()
	if err != nil {
		return nil, err
	}
	merged := blockindex.Merge(lists, dead)
	seg := commit.Segment{Count: uint64(len(merged))}
	plains := blockindex.Encode(merged)
	locs, err := t.pieces(plains)
	if err != nil {
		return nil, err
	}
	for i, plain := range plains {
		entries, err := blockindex.Decode(plain)
		if err != nil {
			return nil, fmt.Errorf("BUG: writeback: %w", err)
		}
		seg.Pieces = append(seg.Pieces, commit.Piece{First: entries[0].Link.Hash, At: locs[i]})
	}
	c.Segments = append(segs[:from:from], seg)
	return fresh, nil
}

// toMerge reads the segments that a new one is to replace, those from the returned
// position on: if it can, those from the position that it is given. One that cannot
// be read stops no commit. The account has all that the index has, once references
// are counted, and takes the place of every segment; before that, the segments up to
// the one that cannot be read stay as they are.
func (t *tailWriter) toMerge(segs []commit.Segment, from int) (int, [][]blockindex.Entry, error) {
	var lists [][]blockindex.Entry
	if slices.ContainsFunc(segs[:from], t.isLost) {
		from = 0 // somebody who recovers the drive could not read it
	}
	for at := len(segs) - 1; at >= from; at-- {
		entries, err := t.readSegment(segs[at])
		switch {
		case t.ctx.Err() != nil:
			return 0, nil, t.ctx.Err()
		case err == nil:
			lists = append(lists, entries)
		default:
			t.e.cfg.Log.Info("a segment of the block index cannot be read", "err", err)
			return t.instead(at, lists)
		}
	}
	return from, lists, nil
}

// isLost reports whether a piece of a segment is in a lost pack.
func (t *tailWriter) isLost(s commit.Segment) bool {
	return slices.ContainsFunc(s.Pieces, func(p commit.Piece) bool {
		return t.e.cfg.Lost != nil && t.e.cfg.Lost(p.At.Group, p.At.Number)
	})
}

// instead is what toMerge returns when the segment at a position cannot be read,
// and those behind it were.
func (t *tailWriter) instead(at int, behind [][]blockindex.Entry) (int, [][]blockindex.Entry, error) {
	counted, err := t.e.table.Counted()
	if err != nil || !counted {
		return at + 1, behind, err
	}
	all, err := t.e.table.Entries()
	return 0, [][]blockindex.Entry{all}, err
}

// whereNow brings the locators of old segments up to date: folding may have
// moved the blocks.
func (t *tailWriter) whereNow(segs []commit.Segment, at commit.Locator) []commit.Segment {
	out := make([]commit.Segment, len(segs))
	for i, s := range segs {
		out[i] = commit.Segment{Count: s.Count, Pieces: make([]commit.Piece, len(s.Pieces))}
		for j, p := range s.Pieces {
			out[i].Pieces[j] = commit.Piece{First: p.First, At: t.e.locate(p.At.In(at))}
		}
	}
	return out
}

func (t *tailWriter) readSegment(s commit.Segment) ([]blockindex.Entry, error) {
	var out []blockindex.Entry
	for _, p := range s.Pieces {
		plain, err := t.e.reader.At(t.ctx, p.At)
		if err != nil {
			return nil, err
		}
		entries, err := blockindex.Decode(plain)
		if err != nil {
			return nil, err
		}
		out = append(out, entries...)
	}
	return out, nil
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
