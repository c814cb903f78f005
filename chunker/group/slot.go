package group

import (
	"crypto/ed25519"
	"fmt"

	"github.com/zeebo/blake3"

	"skep/chunker/record"
)

// MaxSlotRecord is the largest encoded slot record, in bytes.
const MaxSlotRecord = 20 << 10

const slotContext = "skep slot record v1"

// SlotKey is where a slot record is found: the hash of the public key that
// signs it. Copies of one value lie under unrelated slot keys.
type SlotKey [32]byte

// SlotKeyOf returns the slot key of a signing key.
func SlotKeyOf(pub ed25519.PublicKey) SlotKey {
	var k SlotKey
	blake3.DeriveKey("skep 2026 slot key v1", pub, k[:])
	return k
}

// SlotRecord is a sealed, numbered value under one slot key. What is in it,
// only its owner can tell.
type SlotRecord struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Pub     [ed25519.PublicKeySize]byte
	Number  uint64 // the highest valid one counts
	Until   int64  // Unix seconds; keepers forget the record then
	Value   []byte
}

// Sign returns the signed record. key must be the slot's.
func (r SlotRecord) Sign(key ed25519.PrivateKey) []byte {
	r.Version, r.Pub = version, [ed25519.PublicKeySize]byte(key.Public().(ed25519.PublicKey))
	return record.Sign(key, slotContext, r)
}

// Key is the slot key of the record.
func (r *SlotRecord) Key() SlotKey { return SlotKeyOf(r.Pub[:]) }

// ParseSlotRecord decodes a slot record and checks its signature. The caller
// compares Key with the one it asked for, and Until with its clock.
func ParseSlotRecord(b []byte) (SlotRecord, error) {
	var r SlotRecord
	s, err := record.Parse(b, MaxSlotRecord, &r)
	if err != nil {
		return SlotRecord{}, fmt.Errorf("slot record: %w", err)
	}
	if r.Version != version || r.Until < 0 {
		return SlotRecord{}, fmt.Errorf("slot record: %w", ErrInvalid)
	}
	if err := s.Verify(r.Pub[:], slotContext); err != nil {
		return SlotRecord{}, err
	}
	return r, nil
}
