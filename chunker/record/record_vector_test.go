package record_test

import (
	"bytes"
	"crypto/ed25519"
	"reflect"
	"testing"

	"skep/chunker/record"
	"skep/test/vectors"
)

// sample has a field of each kind that records use.
type sample struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Fixed   [4]byte
	Bytes   []byte
	None    []byte
	Text    string
	Number  uint64
	Signed  int64
	Yes     bool
	Ratio   float64
	Inner   []inner
}

type inner struct {
	_ struct{} `cbor:",toarray"`
	A uint16
	B [2]byte
}

var golden = sample{
	Version: 1, Fixed: [4]byte{1, 2, 3, 4}, Bytes: []byte("bytes"), Text: "text", Number: 1 << 40, Signed: -500, Yes: true, Ratio: 0.85,
	Inner: []inner{{A: 23, B: [2]byte{5, 6}}, {A: 24}, {A: 65535}},
}

func signingKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
}

func TestVectors(t *testing.T) {
	plain := record.Encode(golden)
	vectors.Check(t, "record", "a struct with a field of each kind", plain)
	var back sample
	if err := record.Decode(plain, len(plain), &back); err != nil || !reflect.DeepEqual(back, golden) {
		t.Errorf("%+v, %v", back, err)
	}

	word := record.Sign(signingKey(), "skep test v1", golden)
	vectors.Check(t, "signed", `the same, signed with the key of seed 32 × 09 for "skep test v1"`, word)
	s, err := record.Parse(word, len(word), &back)
	if err != nil || !reflect.DeepEqual(back, golden) {
		t.Fatalf("%+v, %v", back, err)
	}
	if err := s.Verify(signingKey().Public().(ed25519.PublicKey), "skep test v1"); err != nil {
		t.Error(err)
	}
}
