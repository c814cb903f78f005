package readthrough

import (
	"context"
	"fmt"
	"slices"

	"skep/chunker/blockindex"
	"skep/chunker/commit"
	"skep/chunker/link"
)

// EntryAt is the index entry of a block that is found by a locator.
func EntryAt(l commit.Locator) blockindex.Entry {
	return blockindex.Entry{Link: l.Link, Place: blockindex.Place{Group: l.Group, Number: l.Number, Offset: l.Offset, Length: l.Length}}
}

// pieceFor returns the piece of a segment that would name h; -1 for none.
func pieceFor(pieces []commit.Piece, h link.Hash) int {
	lo, hi := 0, len(pieces) // pieces[:lo] begin at or before h
	for lo < hi {
		mid := (lo + hi) / 2
		if string(pieces[mid].First[:]) <= string(h[:]) {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo - 1
}

// learnIn reads the piece of a segment that may name a hash.
func (r *Reader) learnIn(ctx context.Context, s commit.Segment, at commit.Locator, h link.Hash) error {
	p := pieceFor(s.Pieces, h)
	if p < 0 {
		return nil
	}
	if !s.Lists {
		return r.learn(ctx, s.Pieces[p].At.In(at))
	}
	list, err := r.learnList(ctx, s.Pieces[p].At.In(at))
	if err != nil {
		return err
	}
	if p = pieceFor(list, h); p < 0 {
		return nil
	}
	return r.learn(ctx, list[p].At)
}

// Pieces returns all pieces of a segment of a commit that lies at a locator.
func (r *Reader) Pieces(ctx context.Context, s commit.Segment, at commit.Locator) ([]commit.Piece, error) {
	return flat(ctx, s, at, r.list)
}

// flat returns all pieces of a segment; list reads lists of them.
func flat(ctx context.Context, s commit.Segment, at commit.Locator, list func(context.Context, commit.Locator) ([]commit.Piece, error)) ([]commit.Piece, error) {
	out := make([]commit.Piece, 0, len(s.Pieces))
	for _, p := range s.Pieces {
		p.At = p.At.In(at)
		if !s.Lists {
			out = append(out, p)
			continue
		}
		some, err := list(ctx, p.At)
		if err != nil {
			return nil, err
		}
		out = append(out, some...)
	}
	return out, nil
}

// maxLists is how many lists of pieces are kept in memory: each names up to four
// million blocks.
const maxLists = 32

// list reads a list of pieces.
func (r *Reader) list(ctx context.Context, at commit.Locator) ([]commit.Piece, error) {
	r.mu.Lock()
	list, known := r.lists[at.Link.Hash]
	r.mu.Unlock()
	if known {
		return list, nil
	}
	plain, err := r.At(ctx, at)
	if err != nil {
		return nil, err
	}
	if list, err = commit.DecodePieces(plain); err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lists) >= maxLists {
		clear(r.lists)
	}
	r.lists[at.Link.Hash] = list
	return list, nil
}

// learnList reads a list of pieces, and enters into the account where they lie.
func (r *Reader) learnList(ctx context.Context, at commit.Locator) ([]commit.Piece, error) {
	list, err := r.list(ctx, at)
	if err != nil {
		return nil, err
	}
	return list, r.once(at.Link.Hash, func() error {
		own := make([]blockindex.Entry, len(list))
		for i, p := range list {
			own[i] = EntryAt(p.At)
		}
		return r.table.Learn(own)
	})
}

// learn enters one piece of the index into the account, once.
func (r *Reader) learn(ctx context.Context, at commit.Locator) error {
	return r.once(at.Link.Hash, func() error {
		plain, err := r.At(ctx, at)
		if err != nil {
			return err
		}
		entries, err := blockindex.Decode(plain)
		if err != nil {
			return err
		}
		return r.table.Learn(entries)
	})
}

// once does what is to be done with a block of the index, unless it was done.
func (r *Reader) once(h link.Hash, do func() error) error {
	r.mu.Lock()
	done := r.learned[h]
	r.mu.Unlock()
	if done {
		return nil
	}
	if err := do(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.learned[h] = true
	return nil
}

// LearnAll enters the whole index of the newest commit into the account, piece
// by piece. Progress, if not nil, is told after each.
func (r *Reader) LearnAll(ctx context.Context, progress func(done, total int)) error {
	c, at := r.Commit()
	if c == nil {
		return nil
	}
	total, done := 0, 0
	segments := make([][]commit.Piece, len(c.Segments))
	for i, s := range c.Segments {
		var err error
		if segments[i], err = flat(ctx, s, at, r.learnList); err != nil {
			return fmt.Errorf("block index: %w", err)
		}
		total += len(segments[i])
	}
	for _, pieces := range slices.Backward(segments) {
		for _, p := range pieces {
			if err := r.learn(ctx, p.At); err != nil {
				return fmt.Errorf("block index: %w", err)
			}
			done++
			if progress != nil {
				progress(done, total)
			}
		}
	}
	return nil
}
