package tree

import (
	"bytes"
	"errors"
	"testing"

	"skep/chunker/dag"
)

// pieces is a file in memory that takes no more than a piece at once, and no more
// in all than there is room for.
type pieces struct{ b []byte }

func (w pieces) WriteAt(p []byte, off int64) (int, error) {
	if len(p) > pieceSize || off+int64(len(p)) > int64(len(w.b)) {
		return 0, ErrNoSpace
	}
	return copy(w.b[off:], p), nil
}

func TestWritePieces(t *testing.T) {
	for _, n := range []int{0, 1, pieceSize, pieceSize + 1, dag.ChunkSize} {
		w := pieces{make([]byte, n+7)}
		p := pattern(n, 2)
		if done, err := writePieces(w, p, 7); done != n || err != nil || !bytes.Equal(w.b[7:], p) {
			t.Errorf("%d bytes: came out different, %v", n, err)
		}
		if done, err := writePieces(w, p, 8); n > 0 && (!errors.Is(err, ErrNoSpace) || done != (n-1)/pieceSize*pieceSize) {
			t.Errorf("%d bytes without room: %d written, %v", n, done, err)
		}
	}
}
