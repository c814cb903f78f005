package journal

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

const (
	magic       = "skepjrn1"
	headerSize  = 16 // magic, first sequence number
	recordSize  = 24 // length, checksum, sequence number, durable sequence number
	segmentSize = 16 << 20
	suffix      = ".journal"
)

// MaxRecord is the largest payload, in segments of the usual size.
const MaxRecord = segmentSize - segmentSize/reserved - headerSize - recordSize

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Scan reads the records of a segment's bytes. It returns the offset behind the
// last good record and the sequence number that would follow. A segment whose
// header is missing holds nothing.
func Scan(b []byte, replay func(seq uint64, payload []byte) error) (end int, next uint64, err error) {
	if len(b) < headerSize || string(b[:8]) != magic {
		return 0, 0, fmt.Errorf("%w: no segment header", ErrDamaged)
	}
	next = binary.LittleEndian.Uint64(b[8:])
	pos := headerSize
	for {
		payload, size, _, ok := parse(b[min(pos, len(b)):], next) // the last one's padding may be cut off
		if !ok {
			break
		}
		if err := replay(next, payload); err != nil {
			return pos, next, err
		}
		pos, next = pos+size, next+1
	}
	// A later record that was written when this one was on the disk proves
	// damage; otherwise this is where the log ends.
	for p := pos; p+recordSize <= len(b); p += 8 {
		seq := binary.LittleEndian.Uint64(b[p+8:])
		if seq <= next || seq > next+uint64(len(b)/recordSize) {
			continue
		}
		if _, _, durable, ok := parse(b[p:], seq); ok && durable > next {
			return pos, next, fmt.Errorf("%w: record %d is unreadable, record %d is not", ErrDamaged, next, seq)
		}
	}
	return pos, next, nil
}

// parse reads the record with this sequence number at the start of b; size is
// what it occupies.
func parse(b []byte, seq uint64) (payload []byte, size int, durable uint64, ok bool) {
	if len(b) < recordSize {
		return nil, 0, 0, false
	}
	n := int(binary.LittleEndian.Uint32(b))
	if n > MaxRecord || recordSize+n > len(b) || binary.LittleEndian.Uint64(b[8:]) != seq {
		return nil, 0, 0, false
	}
	if crc32.Checksum(b[8:recordSize+n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return nil, 0, 0, false
	}
	return b[recordSize : recordSize+n], occupied(n), binary.LittleEndian.Uint64(b[16:]), true
}

// occupied is the room of a record: records begin at multiples of 8.
func occupied(payload int) int { return (recordSize + payload + 7) &^ 7 }

// looseFrom returns where the records of a segment begin that none of them says
// to be on the disk.
func looseFrom(b []byte) int {
	first := binary.LittleEndian.Uint64(b[8:])
	starts := []int{headerSize}
	var safe uint64
	for pos, seq := headerSize, first; ; seq++ {
		_, size, durable, ok := parse(b[pos:], seq)
		if !ok {
			break
		}
		pos += size
		starts, safe = append(starts, pos), max(safe, durable)
		if pos >= len(b) {
			break
		}
	}
	if safe <= first {
		return headerSize
	}
	return starts[min(safe-first, uint64(len(starts)-1))]
}

// appendRecord appends the record with this sequence number, written when all
// below durable were on the disk.
func appendRecord(b []byte, seq, durable uint64, payload []byte) []byte {
	at := len(b)
	b = append(b, make([]byte, recordSize)...)
	b = append(b, payload...)
	r := b[at:]
	binary.LittleEndian.PutUint32(r, uint32(len(payload)))
	binary.LittleEndian.PutUint64(r[8:], seq)
	binary.LittleEndian.PutUint64(r[16:], durable)
	binary.LittleEndian.PutUint32(r[4:], crc32.Checksum(r[8:], castagnoli))
	return b
}
