package hosted

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/zeebo/blake3"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
)

// ErrDamaged says that a file of the store is not what was written.
var ErrDamaged = errors.New("damaged file")

const (
	leaseMagic  = "skep/ls2"
	recordMagic = "skep/rc1"
	checksum    = 32
)

// leaseFile is what the file "lease" of a group holds.
type leaseFile struct {
	_     struct{} `cbor:",toarray"`
	Slot  uint8
	Dead  group.Bitmap  // of all leases seen
	Last  int64         // latest end of all leases seen
	Lease []byte        // signed group.Lease, the newest
	From  group.PeerKey // who brought the first
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

// decodeLease reads the file of a group's lease, whose signature it checks.
func decodeLease(b []byte, id group.ID) (leaseFile, group.Lease, error) {
	var f leaseFile
	if err := decodeWord(b, leaseMagic, maxLeaseFile, &f); err != nil {
		return f, group.Lease{}, err
	}
	l, err := group.ParseLease(f.Lease)
	if err != nil || l.Group != id || f.Slot >= erasure.MaxShards {
		return f, group.Lease{}, fmt.Errorf("%w: lease of group %v", ErrDamaged, id)
	}
	return f, l, nil
}
