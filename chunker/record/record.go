package record

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// ErrSignature says that a signature does not fit its payload and key.
var ErrSignature = errors.New("bad signature")

// ErrFormat says that bytes are not a record of the expected form.
var ErrFormat = errors.New("malformed record")

var encMode = func() cbor.EncMode {
	m, err := cbor.CoreDetEncOptions().EncMode()
	if err != nil {
		panic("BUG: record: " + err.Error())
	}
	return m
}()

var decMode = func() cbor.DecMode {
	m, err := cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxNestedLevels:   8,
		MaxArrayElements:  1 << 17,
		MaxMapPairs:       1 << 16,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		UTF8:              cbor.UTF8DecodeInvalid, // file names are bytes
	}.DecMode()
	if err != nil {
		panic("BUG: record: " + err.Error())
	}
	return m
}()

// Encode returns the deterministic CBOR of v.
func Encode(v any) []byte {
	b, err := encMode.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("BUG: record: cannot encode %T: %v", v, err))
	}
	return b
}

// Decode reads exactly one record of at most limit bytes into v. It allocates
// in proportion to len(b) at most.
func Decode(b []byte, limit int, v any) error {
	if len(b) > limit {
		return fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(b), limit)
	}
	if err := decMode.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return nil
}

// Signed is a payload with an Ed25519 signature over context, a zero byte and
// the payload. The context keeps words of different kinds apart.
type Signed struct {
	_       struct{} `cbor:",toarray"`
	Payload []byte
	Sig     []byte
}

// Sign encodes v and signs it.
func Sign(key ed25519.PrivateKey, context string, v any) []byte {
	p := Encode(v)
	return Encode(Signed{Payload: p, Sig: ed25519.Sign(key, message(context, p))})
}

// Parse decodes a signed word without checking its signature, and returns what
// Verify needs for that: the key is often inside the payload.
func Parse(b []byte, limit int, v any) (Signed, error) {
	var s Signed
	if err := Decode(b, limit, &s); err != nil {
		return Signed{}, err
	}
	if !bytes.Equal(Encode(s), b) {
		return Signed{}, fmt.Errorf("%w: not in its own form", ErrFormat)
	}
	if err := Decode(s.Payload, limit, v); err != nil {
		return Signed{}, err
	}
	return s, nil
}

// Verify checks the signature of a parsed word.
func (s Signed) Verify(pub []byte, context string) error {
	if len(pub) != ed25519.PublicKeySize || len(s.Sig) != ed25519.SignatureSize ||
		!ed25519.Verify(pub, message(context, s.Payload), s.Sig) {
		return fmt.Errorf("%w on %s", ErrSignature, context)
	}
	return nil
}

func message(context string, payload []byte) []byte {
	m := make([]byte, 0, len(context)+1+len(payload))
	m = append(m, context...)
	m = append(m, 0)
	return append(m, payload...)
}
