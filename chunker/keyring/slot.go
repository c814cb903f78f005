package keyring

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"skep/chunker/group"
	"skep/chunker/secret"
)

// Slots is how many copies of a record there are, each under a slot key of
// its own.
const Slots = 5

// MaxValue is the largest value of a record, in bytes.
const MaxValue = 16<<10 - lengthSize

// MaxJump bounds how far the number of a record may be above one already seen
// (0 for a bare machine). Whoever has a slot's key and nothing else to gain
// could otherwise sign the greatest number there is, and no later record would
// ever count. An honest writer that changes something every second needs 136
// years for this step.
const MaxJump = 1 << 32

var (
	// ErrAbsent says that none of the candidates opens.
	ErrAbsent = errors.New("no record that opens with this key")
	// ErrStale says that a record opens, but only one with a lower number
	// than was seen before: it is kept from us, or was lost.
	ErrStale = errors.New("only records older than one already seen")
	// ErrJump says that the only records that open have a number too far
	// above what was seen before (MaxJump).
	ErrJump = errors.New("record number is out of bounds")
	// ErrTooLarge says that a value does not fit a slot record.
	ErrTooLarge = errors.New("value is too large for a slot record")
)

// Slot is one place of a record: the key pair that names and signs it, and
// the key that seals its value. A Slot never prints its keys.
type Slot struct {
	public  [ed25519.PublicKeySize]byte
	signer  ed25519.PrivateKey
	seal    secret.Key
	context string
}

// String is the start of the slot's public name.
func (s Slot) String() string { return fmt.Sprintf("slot %x", s.public[:6]) }

// GoString hides the keys from %#v.
func (s Slot) GoString() string { return s.String() }

// Format hides the keys from every formatting verb.
func (s Slot) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(s.String())) }

// Key is where the slot's record is found.
func (s Slot) Key() group.SlotKey { return group.SlotKeyOf(s.public[:]) }

// Public is the public half of the key that signs the slot's record.
func (s Slot) Public() [ed25519.PublicKeySize]byte { return s.public }

func newSlot(signer ed25519.PrivateKey, seal secret.Key, context string) Slot {
	return Slot{
		public:  [ed25519.PublicKeySize]byte(signer.Public().(ed25519.PublicKey)),
		signer:  signer,
		seal:    seal,
		context: context,
	}
}

// opened is what the slots of a record held.
type opened struct {
	Number uint64
	Until  int64    // Unix seconds, the latest of all candidates with this number
	Values [][]byte // usually one; several that were written at once, in order
}

// sealAll returns the signed record of each slot, every one with the value
// sealed for it. The same value is sealed alike again: so keepers can tell that what
// is brought under a number that they know is nothing new.
func sealAll(slots []Slot, number uint64, until int64, value []byte) ([][]byte, error) {
	if number == 0 || until < 0 {
		return nil, fmt.Errorf("%w: number %d, until %d", ErrInvalid, number, until)
	}
	padded, err := pad(value)
	if err != nil {
		return nil, err
	}
	out := make([][]byte, len(slots))
	for i, s := range slots {
		r := group.SlotRecord{Number: number, Until: until, Value: secret.SealAlike(s.seal, s.context, padded)}
		out[i] = r.Sign(s.signer)
	}
	return out, nil
}

// openAll looks through candidates for records of these slots and returns the
// values of the highest number between seen and seen+MaxJump. What does not
// parse, does not verify or does not open is passed over. A record past its
// time still counts: it is the owner's own word, and better than none.
func openAll(slots []Slot, candidates [][]byte, seen uint64) (opened, error) {
	var best opened
	stale, jumped := false, false
	for _, c := range candidates {
		r, err := group.ParseSlotRecord(c)
		if err != nil || r.Number == 0 || (r.Number < best.Number && r.Number >= seen) {
			continue
		}
		value, ok := openOne(slots, r)
		switch {
		case !ok:
		case r.Number < seen:
			stale = true
		case r.Number-seen > MaxJump:
			jumped = true
		default:
			best.add(r, value)
		}
	}
	switch {
	case best.Number > 0:
		return best, nil
	case stale:
		return opened{}, ErrStale
	case jumped:
		return opened{}, ErrJump
	}
	return opened{}, ErrAbsent
}

// add takes in one more opened record, of a number not below o's.
func (o *opened) add(r group.SlotRecord, value []byte) {
	if r.Number > o.Number {
		*o = opened{Number: r.Number}
	}
	o.Until = max(o.Until, r.Until)
	i, found := slices.BinarySearchFunc(o.Values, value, bytes.Compare)
	if !found {
		o.Values = slices.Insert(o.Values, i, value)
	}
}

// openOne opens a record with whichever slot fits; several may have one
// public key, where a drive had several epochs.
func openOne(slots []Slot, r group.SlotRecord) ([]byte, bool) {
	for _, s := range slots {
		if s.public != r.Pub {
			continue
		}
		padded, err := secret.Open(s.seal, s.context, r.Value)
		if err != nil {
			continue
		}
		if value, ok := unpad(padded); ok {
			return value, true
		}
	}
	return nil, false
}

// lengthSize is the length prefix of a padded value.
const lengthSize = 4

// sizeSteps are the sizes to which values are padded.
var sizeSteps = [...]int{1 << 10, 2 << 10, 4 << 10, 8 << 10, 16 << 10}

// pad returns length, value and zeros up to the next size step.
func pad(value []byte) ([]byte, error) {
	for _, step := range sizeSteps {
		if lengthSize+len(value) <= step {
			p := make([]byte, step)
			binary.BigEndian.PutUint32(p, uint32(len(value)))
			copy(p[lengthSize:], value)
			return p, nil
		}
	}
	return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, len(value), MaxValue)
}

// unpad is the inverse of pad and accepts nothing that pad does not make.
func unpad(p []byte) ([]byte, bool) {
	if !slices.Contains(sizeSteps[:], len(p)) {
		return nil, false
	}
	n := binary.BigEndian.Uint32(p)
	rest := p[lengthSize:]
	if uint64(n) > uint64(len(rest)) || len(bytes.TrimLeft(rest[n:], "\x00")) > 0 {
		return nil, false
	}
	value := rest[:n:n]
	if again, err := pad(value); err != nil || len(again) != len(p) {
		return nil, false
	}
	return value, true
}
