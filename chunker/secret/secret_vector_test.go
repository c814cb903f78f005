package secret_test

import (
	"bytes"
	"crypto/ed25519"
	"testing"

	"skep/chunker/secret"
	"skep/test/vectors"
)

// counting is a key whose bytes can be told apart.
func counting(from byte) (k secret.Key) {
	for i := range k {
		k[i] = from + byte(i)
	}
	return k
}

func TestVectors(t *testing.T) {
	k := counting(0)
	var derived []byte
	for _, parts := range [][][]byte{nil, {{}}, {[]byte("a")}, {[]byte("a"), []byte("b")}, {[]byte("ab")}, {bytes.Repeat([]byte{7}, 200)}} {
		d := secret.Derive(k, "skep test v1", parts...)
		derived = append(derived, d[:]...)
	}
	vectors.Check(t, "derive", `Derive(00…1f, "skep test v1", parts) for no part, "", a, a b, ab, 200 × 07`, derived)

	vectors.Check(t, "sealonce", `SealOnce(00…1f, "a message")`, secret.SealOnce(k, nil, []byte("a message")))

	vectors.Check(t, "sealalike", `SealAlike(00…1f, "skep test v1", "a message")`, secret.SealAlike(k, "skep test v1", []byte("a message")))

	stream := make([]byte, 80)
	secret.Stream(k, stream)
	vectors.Check(t, "stream", "the first 80 bytes of Stream(00…1f)", stream)

	vectors.Check(t, "signer", "public half of Signer(00…1f)", k.Signer().Public().(ed25519.PublicKey))
}

// TestVectorSealed opens a message that was sealed once: its salt was random.
func TestVectorSealed(t *testing.T) {
	const context, message = "skep test v1", "a message that was sealed once"
	sealed := vectors.Load(t, "seal", `Seal(00…1f, "skep test v1", "`+message+`")`, func() []byte {
		return secret.Seal(counting(0), context, []byte(message))
	})
	got, err := secret.Open(counting(0), context, sealed)
	if err != nil || string(got) != message {
		t.Fatalf("%q, %v", got, err)
	}
	// What Seal does beyond drawing the salt.
	one := secret.Derive(counting(0), context, sealed[:32])
	if again := append(sealed[:32:32], secret.SealOnce(one, nil, []byte(message))...); !bytes.Equal(again, sealed) {
		t.Errorf("sealed again with the salt of old:\n got %x\nwant %x", again, sealed)
	}
}
