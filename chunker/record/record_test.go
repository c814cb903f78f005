package record_test

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/record"
)

func drawSample(t *rapid.T) sample {
	bytesOf := rapid.SliceOfN(rapid.Byte(), 1, 40)
	s := sample{
		Version: rapid.Uint8().Draw(t, "version"), Bytes: bytesOf.Draw(t, "bytes"), Text: rapid.String().Draw(t, "text"),
		Number: rapid.Uint64().Draw(t, "number"), Signed: rapid.Int64().Draw(t, "signed"), Yes: rapid.Bool().Draw(t, "yes"),
		Ratio: rapid.Float64().Draw(t, "ratio"),
	}
	copy(s.Fixed[:], bytesOf.Draw(t, "fixed"))
	for range rapid.IntRange(0, 5).Draw(t, "inner") {
		s.Inner = append(s.Inner, inner{A: rapid.Uint16().Draw(t, "a")})
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := drawSample(t)
		b := record.Encode(want)
		var got sample
		if err := record.Decode(b, len(b), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v came back as %+v, %v", want, got, err)
		}
		if again := record.Encode(got); !bytes.Equal(again, b) {
			t.Fatalf("%x encodes again as %x", b, again)
		}
		if err := record.Decode(b, len(b)-1, &got); !errors.Is(err, record.ErrFormat) {
			t.Fatalf("a record above the limit: %v", err)
		}
		cut := b[:rapid.IntRange(0, len(b)-1).Draw(t, "cut")]
		if err := record.Decode(cut, len(b), &got); !errors.Is(err, record.ErrFormat) {
			t.Fatalf("a record cut short: %v", err)
		}
		if err := record.Decode(append(bytes.Clone(b), 0), len(b)+1, &got); !errors.Is(err, record.ErrFormat) {
			t.Fatalf("bytes behind a record: %v", err)
		}
	})
}

// Whatever could be read in two ways, or could take up more memory than it has
// bytes, is refused.
func TestRefused(t *testing.T) {
	for what, b := range map[string][]byte{
		"nothing":                 {},
		"too few fields":          {0x81, 0x01},
		"too many fields":         {0x83, 0x01, 0x42, 0, 0, 0x00},
		"a map":                   {0xa1, 0x61, 'A', 0x01},
		"a tag":                   {0x82, 0xc1, 0x01, 0x42, 0, 0},
		"indefinite array":        {0x9f, 0x01, 0x42, 0, 0, 0xff},
		"indefinite bytes":        {0x82, 0x01, 0x5f, 0x42, 0, 0, 0xff},
		"a number too large":      {0x82, 0x1a, 0, 1, 0, 0, 0x42, 0, 0},
		"a negative number":       {0x82, 0x20, 0x42, 0, 0},
		"a text for a number":     {0x82, 0x61, '1', 0x42, 0, 0},
		"a length beyond the end": {0x82, 0x01, 0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
		"an array beyond the end": {0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
	} {
		var v inner
		if err := record.Decode(b, 100, &v); !errors.Is(err, record.ErrFormat) {
			t.Errorf("%s: %+v, %v", what, v, err)
		}
	}
	deep := append(bytes.Repeat([]byte{0x81}, 50), 0x00)
	var v any
	if err := record.Decode(deep, 100, &v); !errors.Is(err, record.ErrFormat) {
		t.Errorf("nested 50 times: %v", err)
	}
}

// A word verifies under its key and context only, and with its bytes only.
func TestSigned(t *testing.T) {
	const context = "skep test v1"
	key := signingKey()
	pub := key.Public().(ed25519.PublicKey)
	rapid.Check(t, func(t *rapid.T) {
		word := record.Sign(key, context, drawSample(t))
		var v sample
		s, err := record.Parse(word, len(word), &v)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(pub, context); err != nil {
			t.Fatal(err)
		}
		other := bytes.Clone(pub)
		other[rapid.IntRange(0, 31).Draw(t, "byte")] ^= 1
		flipped := record.Signed{Payload: bytes.Clone(s.Payload), Sig: s.Sig}
		i := rapid.IntRange(0, len(s.Payload)*8-1).Draw(t, "bit")
		flipped.Payload[i/8] ^= 1 << (i % 8)
		for what, err := range map[string]error{
			"another key":     s.Verify(other, context),
			"no key":          s.Verify(nil, context),
			"another context": s.Verify(pub, "skep test v2"),
			"a longer one":    s.Verify(pub, context+"\x00"),
			"a flipped bit":   flipped.Verify(pub, context),
			"no signature":    record.Signed{Payload: s.Payload}.Verify(pub, context),
		} {
			if !errors.Is(err, record.ErrSignature) {
				t.Fatalf("%s: %v", what, err)
			}
		}
	})
}

// The context ends with a zero byte, so that none is the beginning of another
// one's message.
func TestContextsDoNotRunIntoPayloads(t *testing.T) {
	key := signingKey()
	word := record.Sign(key, "ab", "c")
	var v string
	s, err := record.Parse(word, len(word), &v)
	if err != nil {
		t.Fatal(err)
	}
	shifted := record.Signed{Payload: append([]byte("b\x00"), s.Payload...), Sig: s.Sig}
	if err := shifted.Verify(key.Public().(ed25519.PublicKey), "a"); !errors.Is(err, record.ErrSignature) {
		t.Errorf("a payload verifies under a shorter context: %v", err)
	}
}

// TestOneForm: nobody can make other bytes of the same meaning without the key, which
// whoever compares words by their bytes would take for other words.
func TestOneForm(t *testing.T) {
	word := record.Sign(signingKey(), "skep test v1", golden)
	at := len(word) - ed25519.SignatureSize - 2 // the signature's length, in one byte
	long := append(bytes.Clone(word[:at]), 0x59, 0, ed25519.SignatureSize)
	long = append(long, word[at+2:]...)
	var v sample
	if _, err := record.Parse(long, 1<<16, &v); !errors.Is(err, record.ErrFormat) {
		t.Errorf("a word with a longer length was parsed: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(record.Sign(signingKey(), "skep test v1", golden))
	f.Add([]byte{0x82, 0x40, 0x40})
	f.Fuzz(func(t *testing.T, b []byte) {
		var v sample
		s, err := record.Parse(b, 1<<16, &v)
		if err != nil {
			return
		}
		if s.Verify(signingKey().Public().(ed25519.PublicKey), "skep test v1") == nil && !bytes.Equal(b, record.Sign(signingKey(), "skep test v1", golden)) {
			t.Fatalf("forged: %x", b)
		}
	})
}
