package state

import (
	"encoding/binary"
	"errors"
	"io"

	"github.com/syndtr/goleveldb/leveldb/journal"
	"github.com/syndtr/goleveldb/leveldb/storage"
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

// checkManifest reads a manifest and returns where its last whole record ends. It fails
// with errManifest where a record is damaged, but for the last: leveldb would pass over
// that, and delete the tables that it names. The last record may have been torn by power
// loss: each is flushed before the next is written, and before anything counts on it.
// Whether it was flushed all the same, and decayed since, is for joinsLogs to see.
func checkManifest(r io.Reader) (whole int64, err error) {
	block := make([]byte, logBlock)
	damaged := false
	for at := int64(0); ; at += logBlock {
		n, err := io.ReadFull(r, block)
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			return 0, err
		}
		for b := block[:n]; len(b) >= pieceHeader; {
			size, kind := piece(b)
			switch {
			case size == 0:
				damaged, b = true, b[1:]
			case damaged && (kind == pieceWhole || kind == pieceFirst):
				return 0, errManifest
			default:
				b = b[size:]
				if !damaged && (kind == pieceWhole || kind == pieceLast) {
					whole = at + int64(n-len(b))
				}
			}
		}
		if err != nil {
			return whole, nil
		}
	}
}

// piece is the size of the sound piece that b begins with, 0 if there is none, and its
// kind.
func piece(b []byte) (size int, kind byte) {
	kind = b[6]
	size = pieceHeader + int(binary.LittleEndian.Uint16(b[4:]))
	if kind < pieceWhole || kind > pieceLast || size > len(b) {
		return 0, 0
	}
	if util.NewCRC(b[6:size]).Value() != binary.LittleEndian.Uint32(b) {
		return 0, 0
	}
	return size, kind
}

// Fields of a manifest's record, in the order in which they come before all others.
const (
	fieldComparer = 1
	fieldLog      = 2
	fieldNext     = 3
	fieldSeq      = 4
)

// coveredBy is which log of leveldb is the first whose changes the tables of a manifest do
// not have, and the number of the last change that they have.
func coveredBy(r io.Reader) (log int64, seq uint64, err error) {
	records := journal.NewReader(r, nil, true, true)
	for {
		record, err := records.Next()
		if err == io.EOF {
			return log, seq, nil
		}
		if err != nil {
			return 0, 0, err
		}
		b, err := io.ReadAll(record)
		if err != nil {
			return 0, 0, err
		}
		for fields, more := (reader{b: b}), true; more; {
			switch fields.uvarint() {
			case fieldComparer:
				fields.bytes()
			case fieldLog:
				log = int64(fields.uvarint())
			case fieldNext:
				fields.uvarint()
			case fieldSeq:
				seq = fields.uvarint()
			default:
				more = false
			}
		}
	}
}

// joinsLogs fails with errManifest where leveldb's logs do not join on to the tables of
// the manifest r: the record that says which tables have what lies between is not there
// any more. Changes are numbered one by one, and get into a log only after what came
// before is in another one, or in tables that the manifest has on the disk.
func (u untorn) joinsLogs(r io.Reader) error {
	log, seq, err := coveredBy(r)
	if err != nil {
		return err
	}
	all, err := u.List(storage.TypeJournal)
	if err != nil {
		return err
	}
	logs, _ := logsFirst(all)
	for _, fd := range logs {
		if fd.Num < log {
			continue
		}
		first, err := u.firstIn(fd)
		if err != nil {
			return err
		}
		if first > seq+1 {
			return errManifest
		}
		if first > 0 {
			break
		}
	}
	return nil
}

// firstIn is the number of the first change in a log, 0 if there is none.
func (u untorn) firstIn(fd storage.FileDesc) (uint64, error) {
	r, err := u.Storage.Open(fd)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	var number [8]byte
	record, err := journal.NewReader(r, nil, true, true).Next()
	if err == nil {
		_, err = io.ReadFull(record, number[:])
	}
	var damaged *journal.ErrCorrupted
	if err == io.EOF || err == io.ErrUnexpectedEOF || errors.As(err, &damaged) {
		return 0, nil // it was not written, or not flushed
	}
	return binary.LittleEndian.Uint64(number[:]), err
}
