package writeback

import "skep/cache/tree"

// settled is what a commit has taken, until it is published: in pieces, and in as
// few bytes as will do, as it may be of millions of files.
type settled struct {
	linked [][]tree.Settled
	inline [][]small
}

// small is a file whose content is in its record.
type small struct {
	ino  tree.Ino
	size int64
}

func (s *settled) add(x tree.Settled) {
	if x.Content.IsZero() {
		s.inline = push(s.inline, small{x.Ino, x.Size})
	} else {
		s.linked = push(s.linked, x)
	}
}

// pieces calls fn with all, some at a time, until one call fails.
func (s *settled) pieces(fn func([]tree.Settled) error) error {
	for _, some := range s.linked {
		if err := fn(some); err != nil {
			return err
		}
	}
	for _, some := range s.inline {
		all := make([]tree.Settled, len(some))
		for i, x := range some {
			all[i] = tree.Settled{Ino: x.ino, Size: x.size}
		}
		if err := fn(all); err != nil {
			return err
		}
	}
	return nil
}

// pieceLen is how many there are in a piece.
const pieceLen = 8 << 10

// push appends to the last piece, or begins another one, so that what is there is
// not copied again and again.
func push[T any](pieces [][]T, x T) [][]T {
	n := len(pieces)
	if n == 0 || len(pieces[n-1]) == pieceLen {
		pieces, n = append(pieces, nil), n+1
	}
	pieces[n-1] = append(pieces[n-1], x)
	return pieces
}
