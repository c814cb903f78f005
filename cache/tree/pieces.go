package tree

import "io"

// pieceSize is how much is written to a backing file at once. The kernel takes
// memory for a write in pieces as large as that: of 1 MiB, it is mostly memory that
// nobody has used for long, which where the machine is a guest its host has to
// find first, and that costs more than all the rest of the write.
const pieceSize = 128 << 10

// writePieces is WriteAt, piece by piece.
func writePieces(f io.WriterAt, p []byte, at int64) (done int, err error) {
	for done < len(p) && err == nil {
		var n int
		n, err = f.WriteAt(p[done:min(len(p), done+pieceSize)], at+int64(done))
		done += n
	}
	return done, err
}
