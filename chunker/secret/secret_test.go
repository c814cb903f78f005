package secret_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/secret"
)

func TestSealOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := counting(rapid.Byte().Draw(t, "key"))
		context, plain := rapid.String().Draw(t, "context"), rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed := secret.Seal(k, context, plain)
		if len(sealed) != len(plain)+secret.Overhead {
			t.Fatalf("%d bytes seal to %d", len(plain), len(sealed))
		}
		again := secret.Seal(k, context, plain)
		if bytes.Equal(again[:secret.Size], sealed[:secret.Size]) || bytes.Equal(again[secret.Size:], sealed[secret.Size:]) {
			t.Fatal("two messages were sealed with one key")
		}
		got, err := secret.Open(k, context, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%x, %v", got, err)
		}
		for what, open := range map[string]func() ([]byte, error){
			"another key":     func() ([]byte, error) { return secret.Open(secret.New(), context, sealed) },
			"another context": func() ([]byte, error) { return secret.Open(k, context+"x", sealed) },
			"cut short":       func() ([]byte, error) { return secret.Open(k, context, sealed[:len(sealed)-1]) },
			"longer":          func() ([]byte, error) { return secret.Open(k, context, append(bytes.Clone(sealed), 0)) },
			"a flipped bit": func() ([]byte, error) {
				bad := bytes.Clone(sealed)
				i := rapid.IntRange(0, len(bad)*8-1).Draw(t, "bit")
				bad[i/8] ^= 1 << (i % 8)
				return secret.Open(k, context, bad)
			},
		} {
			if got, err := open(); !errors.Is(err, secret.ErrOpen) || got != nil {
				t.Fatalf("%s: %x, %v", what, got, err)
			}
		}
	})
}

// Equal messages are sealed alike; different ones, or under another context, under
// different keys.
func TestSealAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := counting(rapid.Byte().Draw(t, "key"))
		context, plain := rapid.String().Draw(t, "context"), rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		sealed := secret.SealAlike(k, context, plain)
		if got, err := secret.Open(k, context, sealed); err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%x, %v", got, err)
		}
		if again := secret.SealAlike(k, context, plain); !bytes.Equal(again, sealed) {
			t.Fatal("one message gave two results")
		}
		others := [][]byte{secret.SealAlike(k, context+"x", plain), secret.SealAlike(k, context, append(bytes.Clone(plain), 0)),
			secret.SealAlike(counting(77), context, plain)}
		for i, other := range others {
			if bytes.Equal(other[:secret.Size], sealed[:secret.Size]) && (i < 2 || k != counting(77)) {
				t.Fatal("two messages were sealed with one key")
			}
		}
	})
}

// Parts are kept apart: no two lists of them, and no two contexts, give one key.
func TestDeriveKeepsApart(t *testing.T) {
	seen := map[secret.Key]string{}
	rapid.Check(t, func(t *rapid.T) {
		context := rapid.StringN(0, 3, 3).Draw(t, "context")
		parts := rapid.SliceOfN(rapid.SliceOfN(rapid.ByteRange(0, 2), 0, 3), 0, 3).Draw(t, "parts")
		name := fmt.Sprintf("%q %q", context, parts)
		k := secret.Derive(secret.Key{1}, context, parts...)
		if before, ok := seen[k]; ok && before != name {
			t.Fatalf("%s and %s give one key", before, name)
		}
		seen[k] = name
	})
	if secret.Derive(secret.Key{1}, "c") == secret.Derive(secret.Key{2}, "c") {
		t.Error("two parents give one key")
	}
}

// SealOnce and OpenOnce work in place.
func TestInPlace(t *testing.T) {
	k, plain := secret.New(), []byte("in place")
	buf := append(make([]byte, 0, 64), plain...)
	sealed := secret.SealOnce(k, buf, buf)
	if &sealed[0] != &buf[0] {
		t.Error("sealed somewhere else, though there was room")
	}
	if !bytes.Equal(sealed, secret.SealOnce(k, nil, plain)) {
		t.Error("in place it seals to something else")
	}
	if got, err := secret.OpenOnce(k, sealed, sealed); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := secret.OpenOnce(k, nil, nil); !errors.Is(err, secret.ErrOpen) {
		t.Errorf("nothing opens: %v", err)
	}
}

// A key does not print itself, by whatever verb, alone or within something.
func TestKeysDoNotPrint(t *testing.T) {
	k := counting(0x41) // "ABC…"
	for _, v := range []any{k, &k, []secret.Key{k}, map[string]secret.Key{"k": k}, struct{ K secret.Key }{k}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%o", "%b", "%U", "%c"} {
			s := fmt.Sprintf(verb, v)
			for _, leak := range []string{"ABC", "4142", "41 42", "65 66", "0x41", "U+0041"} {
				if strings.Contains(s, leak) {
					t.Errorf("%s of %T prints %s", verb, v, s)
				}
			}
		}
	}
}

func TestNew(t *testing.T) {
	if a, b := secret.New(), secret.New(); a == b || a == (secret.Key{}) {
		t.Error("keys are not random")
	}
}

// Stream overwrites what was there: it is the same whatever that was.
func TestStream(t *testing.T) {
	a, b := make([]byte, 100), bytes.Repeat([]byte{0xff}, 60)
	secret.Stream(secret.Key{1}, a)
	secret.Stream(secret.Key{1}, b)
	if !bytes.Equal(a[:60], b) {
		t.Error("the stream depends on what was there")
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(secret.Seal(secret.Key{1}, "c", []byte("message")))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if got, err := secret.Open(secret.Key{1}, "c", b); err == nil && string(got) != "message" {
			t.Fatalf("forged: %q", got)
		}
	})
}
