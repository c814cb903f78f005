package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/link"
	"skep/chunker/secret"
)

func random(seed byte, n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

func TestSealOpen(t *testing.T) {
	s := NewSealer(secret.Key{1})
	rapid.Check(t, func(t *rapid.T) {
		plain := rapid.SliceOfN(rapid.Byte(), 0, 5000).Draw(t, "plain")
		if rapid.Bool().Draw(t, "compressible") {
			plain = bytes.Repeat(plain, 3)
		}
		codec := rapid.SampledFrom([]uint64{link.Raw, link.DagPB, link.CBOR}).Draw(t, "codec")
		var room []byte
		if rapid.Bool().Draw(t, "room") {
			room = make([]byte, 0, MaxSealed)
		}
		b, err := s.Seal(codec, plain, room)
		if err != nil {
			t.Fatal(err)
		}
		if b.Tag != s.Tag(codec, plain) {
			t.Fatal("Seal and Tag disagree")
		}
		if len(b.Ciphertext) > len(plain)+Overhead {
			t.Fatalf("%d bytes became %d", len(plain), len(b.Ciphertext))
		}
		before := bytes.Clone(b.Ciphertext)
		got, err := Open(b.Link, b.Ciphertext, nil)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("came back wrong: %v", err)
		}
		if !bytes.Equal(before, b.Ciphertext) {
			t.Fatal("Open altered the ciphertext")
		}
		if got, err := Open(b.Link, before, before); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("came back wrong in its own place: %v", err)
		}
		bad := bytes.Clone(b.Ciphertext)
		bad[rapid.IntRange(0, len(bad)-1).Draw(t, "at")] ^= 1
		if _, err := Open(b.Link, bad, nil); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("altered block: %v", err)
		}
	})
}

// Equal chunks seal to equal blocks, whatever room they are sealed in; those of
// two drives share nothing.
func TestEqualChunksSealToEqualBlocks(t *testing.T) {
	for name, plain := range map[string][]byte{
		"noise": random(1, 300_000), "text": bytes.Repeat([]byte("text "), 60_000), "tiny": []byte("x"), "nothing": nil,
	} {
		a, _ := NewSealer(secret.Key{1}).Seal(link.Raw, plain, nil)
		b, _ := NewSealer(secret.Key{1}).Seal(link.Raw, bytes.Clone(plain), make([]byte, 0, 400_000))
		c, _ := NewSealer(secret.Key{2}).Seal(link.Raw, plain, nil)
		if a.Link != b.Link || a.Tag != b.Tag || !bytes.Equal(a.Ciphertext, b.Ciphertext) {
			t.Errorf("%s: equal chunks sealed to unequal blocks", name)
		}
		if a.Link.Hash == c.Link.Hash || a.Link.Key == c.Link.Key || a.Tag == c.Tag {
			t.Errorf("%s: two drives share a block", name)
		}
	}
}

// No key seals two messages: the key is the keyed hash of the very bytes that are
// sealed, codec and compression included, so whatever differs in them differs in
// the key.
func TestNoKeySealsTwoMessages(t *testing.T) {
	s := NewSealer(secret.Key{7})
	messages := map[secret.Key]string{}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 400).Draw(t, "n")
		plain := bytes.Repeat([]byte{rapid.ByteRange(0, 3).Draw(t, "b")}, n)
		for _, codec := range []uint64{link.Raw, link.DagPB, link.CBOR} {
			b, err := s.Seal(codec, plain, nil)
			if err != nil {
				t.Fatal(err)
			}
			if old, ok := messages[b.Link.Key]; ok && old != string(b.Ciphertext) {
				t.Fatalf("one key sealed two messages")
			}
			msg, err := secret.OpenOnce(b.Link.Key, nil, b.Ciphertext)
			if err != nil || s.keyOf(msg) != b.Link.Key {
				t.Fatalf("the key of %d bytes is not the hash of what it sealed: %v", n, err)
			}
			messages[b.Link.Key] = string(b.Ciphertext)
		}
	})
}

func TestCodecIsSealed(t *testing.T) {
	b, _ := NewSealer(secret.Key{1}).Seal(link.Raw, []byte("x"), nil)
	b.Link.Codec = link.DagPB
	if _, err := Open(b.Link, b.Ciphertext, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("opened under another codec: %v", err)
	}
}

// A bomb: a block that claims and would yield more than a block may hold.
func TestDecompressionIsBounded(t *testing.T) {
	bomb := zstdEncoder.EncodeAll(make([]byte, 64<<20), nil)
	h := header(link.Raw, zstdPayload)
	msg := append(h[:], 0x80, 0x80, 0x40) // uvarint of 1 MiB
	if _, err := parse(link.Raw, append(msg, bomb...)); err == nil {
		t.Error("took a bomb")
	}
}

func FuzzOpen(f *testing.F) {
	b, _ := NewSealer(secret.Key{1}).Seal(link.Raw, bytes.Repeat([]byte("skep "), 99), nil)
	f.Add(b.Ciphertext)
	f.Fuzz(func(t *testing.T, ct []byte) {
		if got, err := Open(b.Link, ct, nil); err == nil && !bytes.Equal(ct, b.Ciphertext) {
			t.Fatalf("opened %d forged bytes to %d", len(ct), len(got))
		}
	})
}

func FuzzParse(f *testing.F) {
	h, z := header(link.Raw, plainPayload), header(link.Raw, zstdPayload)
	f.Add(h[:])
	f.Add(append(z[:], 5))
	f.Fuzz(func(t *testing.T, msg []byte) {
		if len(msg) < headerSize {
			return
		}
		if p, err := parse(link.Raw, msg); err == nil && len(p) > MaxPlain {
			t.Fatal("more than a block may hold")
		}
	})
}

func BenchmarkSealRandom(b *testing.B) { benchmarkSeal(b, random(1, 1<<20)) }
func BenchmarkSealText(b *testing.B) {
	benchmarkSeal(b, bytes.Repeat([]byte("func main() { return nil }\n\t"), 1<<20/28))
}
func BenchmarkOpenRandom(b *testing.B) {
	s, _ := NewSealer(secret.Key{1}).Seal(link.Raw, random(1, 1<<20), nil)
	dst := make([]byte, 0, MaxSealed)
	b.SetBytes(1 << 20)
	for b.Loop() {
		_, _ = Open(s.Link, s.Ciphertext, dst)
	}
}

func benchmarkSeal(b *testing.B, plain []byte) {
	s := NewSealer(secret.Key{1})
	dst := make([]byte, 0, MaxSealed)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		_, _ = s.Seal(link.Raw, plain, dst)
	}
}
