package writeback

import (
	"errors"
	"testing"

	"skep/cache/tree"
	"skep/chunker/link"
)

// All that was added comes once, as it was, some at a time, until somebody refuses.
func TestSettledInPieces(t *testing.T) {
	const n = 5*pieceLen + 7
	want := map[tree.Ino]tree.Settled{}
	var all settled
	for i := range n {
		s := tree.Settled{Ino: tree.Ino(i + 1), Size: int64(i % 100)}
		if i%3 == 0 {
			s.Content = link.Link{Hash: link.Hash{byte(i), byte(i >> 8)}, Key: [32]byte{1}}
		}
		want[s.Ino] = s
		all.add(s)
	}
	calls := 0
	err := all.pieces(func(some []tree.Settled) error {
		calls++
		if len(some) == 0 || len(some) > pieceLen {
			t.Errorf("%d at a time", len(some))
		}
		for _, s := range some {
			if want[s.Ino] != s {
				t.Fatalf("%v, want %v", s, want[s.Ino])
			}
			delete(want, s.Ino)
		}
		return nil
	})
	if err != nil || len(want) > 0 {
		t.Errorf("%d did not come, %v", len(want), err)
	}
	refused := errors.New("refused")
	left := calls - 1 // the last one is of inline content
	if err := all.pieces(func([]tree.Settled) error {
		if left--; left == 0 {
			return refused
		}
		return nil
	}); err != refused || left != 0 {
		t.Errorf("%v, %d calls before the one that fails", err, left)
	}
}
