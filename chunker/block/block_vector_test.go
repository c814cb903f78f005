package block_test

import (
	"bytes"
	"testing"

	"skep/chunker/block"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/test/vectors"
)

var vectorConvergence = secret.Key{0: 1, 31: 2}

// plaintexts are those of the vectors. Only the first three are stored as they
// are.
func plaintexts() []struct {
	name  string
	codec uint64
	plain []byte
} {
	noise := make([]byte, 5000)
	secret.Stream(secret.Key{7}, noise)
	text := bytes.Repeat([]byte("All work and no play makes a dull drive. "), 100)
	return []struct {
		name  string
		codec uint64
		plain []byte
	}{
		{"empty", link.Raw, nil},
		{"short", link.CBOR, []byte("short")},
		{"noise", link.Raw, noise},
		{"text", link.Raw, text},
		{"node", link.DagPB, text[:500]},
	}
}

// TestVectors pins blocks. What a compressor makes may change with its version;
// then the same plaintext gives another block, and both must open. So those
// that are compressed are only read.
func TestVectors(t *testing.T) {
	s := block.NewSealer(vectorConvergence)
	for i, c := range plaintexts() {
		now, err := s.Seal(c.codec, c.plain, nil)
		if err != nil {
			t.Fatal(err)
		}
		vectors.Check(t, c.name+"-tag", "tag of "+c.name, now.Tag[:])
		about := "link in 65 bytes and ciphertext of " + c.name
		old := vectors.Load(t, c.name, about, func() []byte { return append(now.Link.Append(nil), now.Ciphertext...) })
		if i < 3 {
			vectors.Check(t, c.name, about, append(now.Link.Append(nil), now.Ciphertext...))
		}
		var l link.Link
		if err := l.UnmarshalBinary(old[:link.EncodedSize]); err != nil {
			t.Fatal(err)
		}
		got, err := block.Open(l, old[link.EncodedSize:], nil)
		if err != nil || !bytes.Equal(got, c.plain) {
			t.Errorf("%s: %d bytes, %v", c.name, len(got), err)
		}
	}
}
