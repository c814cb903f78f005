package state

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/syndtr/goleveldb/leveldb/util"
)

// errManifest says that leveldb's manifest is damaged.
var errManifest = errors.New("the list of the index's tables is damaged")

// Leveldb's logs and its manifest are blocks of pieces, each with a header of checksum,
// length and kind, none over the end of a block.
const (
	logBlock    = 32 << 10
	pieceHeader = 7
	pieceWhole  = 1 // kinds: a record
	pieceFirst  = 2 // … the first piece of one
	pieceLast   = 4
)

// checkManifest reads a manifest and fails with errManifest where a record in it is
// damaged, but for the last: leveldb would pass over that, and delete the tables that
// it names. The last record may have been torn by power loss: each is flushed before
// the next is written, and before anything counts on it.
func checkManifest(r io.Reader) error {
	block := make([]byte, logBlock)
	damaged := false
	for {
		n, err := io.ReadFull(r, block)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return err
		}
		for b := block[:n]; len(b) >= pieceHeader; {
			size, begins := piece(b)
			switch {
			case size == 0:
				damaged, b = true, b[1:]
			case damaged && begins:
				return errManifest
			default:
				b = b[size:]
			}
		}
		if err != nil {
			return nil
		}
	}
}

// piece is the size of the sound piece that b begins with, 0 if there is none, and
// whether a record begins with it.
func piece(b []byte) (size int, begins bool) {
	kind := b[6]
	size = pieceHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if kind < pieceWhole || kind > pieceLast || size > len(b) {
		return 0, false
	}
	if util.NewCRC(b[6:size]).Value() != binary.LittleEndian.Uint32(b) {
		return 0, false
	}
	return size, kind == pieceWhole || kind == pieceFirst
}
