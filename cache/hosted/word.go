package hosted

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"skep/chunker/group"
	"skep/chunker/record"
)

// ErrDamaged says that a file of the store is not what was written.
var ErrDamaged = errors.New("damaged file")

const (
	leaseMagic  = "skep/ls1"
	recordMagic = "skep/rc1"
	checksum    = 32
)

// leaseFile is what the file "lease" of a group holds.
type leaseFile struct {
	_     struct{} `cbor:",toarray"`
	Slot  uint8
	Dead  group.Bitmap // of all leases seen
	Last  int64        // latest end of all leases seen
	Lease []byte       // signed group.Lease, the newest
}

// recordFile is what the file of a slot record holds.
type recordFile struct {
	_      struct{}      `cbor:",toarray"`
	From   group.PeerKey // who brought it
	Record []byte        // signed group.SlotRecord
}

// Longest files of each kind, in bytes.
const (
	maxLeaseFile  = group.MaxLease + 256
	maxRecordFile = group.MaxSlotRecord + 256
)

// encodeWord returns magic, CBOR of v and BLAKE3 of both.
func encodeWord(magic string, v any) []byte {
	b := append([]byte(magic), record.Encode(v)...)
	sum := blake3.Sum256(b)
	return append(b, sum[:]...)
}

// decodeWord is the inverse of encodeWord.
func decodeWord(b []byte, magic string, limit int, v any) error {
	if len(b) < len(magic)+checksum || len(b) > limit || string(b[:len(magic)]) != magic {
		return ErrDamaged
	}
	body := b[:len(b)-checksum]
	if sum := blake3.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return ErrDamaged
	}
	if err := record.Decode(body[len(magic):], limit, v); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return nil
}
