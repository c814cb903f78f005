package writeback

import (
	"fmt"

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
	lists := [][]blockindex.Entry{fresh}
	for _, s := range segs[min(from, len(segs)):] {
		entries, err := t.readSegment(s)
		if err != nil {
			return nil, err
		}
		lists = append(lists, entries)
	}
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
	c.Segments = append(segs[:min(from, len(segs)):min(from, len(segs))], seg)
	return fresh, nil
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
		d := dead[p.Group]
		return d.Has(p.Number)
	}, nil
}
