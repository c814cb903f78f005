package keyring

import (
	"bytes"
	"errors"
	"testing"

	"skep/chunker/record"
)

// cheap keeps the tests fast.
var cheap = Cost{Passes: 1, Memory: 64, Lanes: 1}

func TestLocal(t *testing.T) {
	l := Local{Device: key(1), Root: key(2)}
	plain, err := EncodeLocal(l, nil, Cost{})
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := EncodeLocal(l, []byte("open sesame"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		file       []byte
		passphrase string
		want       error
	}{
		{"in clear", plain, "", nil},
		{"in clear, passphrase not needed", plain, "x", nil},
		{"sealed", sealed, "open sesame", nil},
		{"no passphrase", sealed, "", ErrLocked},
		{"wrong passphrase", sealed, "open sesam", ErrPassphrase},
		{"empty", nil, "", record.ErrFormat},
		{"cut off", plain[:len(plain)-1], "", record.ErrFormat},
		{"something else", record.Encode("hello"), "", record.ErrFormat},
		{"too large", make([]byte, MaxLocal+1), "", record.ErrFormat},
	} {
		got, err := DecodeLocal(c.file, []byte(c.passphrase))
		if !errors.Is(err, c.want) || (err == nil && got != l) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if bytes.Contains(sealed, l.Device[:8]) || bytes.Contains(sealed, l.Root[:8]) {
		t.Error("a sealed file shows a key")
	}
	if !l.Signer().Equal(l.Device.Signer()) {
		t.Error("the signer is not the device's")
	}
	if _, err := EncodeLocal(l, []byte("x"), Cost{Passes: 1, Memory: 1 << 30, Lanes: 1}); err == nil {
		t.Error("a cost that no reader accepts is written")
	}
	if c := (Cost{}).orDefault(); !c.valid() || c.Memory < 64<<10 {
		t.Errorf("default cost %+v", c)
	}
}

func TestLocalAlteredNeverOpens(t *testing.T) {
	l := Local{Device: key(1), Root: key(2)}
	sealed, err := EncodeLocal(l, []byte("p"), cheap)
	if err != nil {
		t.Fatal(err)
	}
	for i := range sealed {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		if _, err := DecodeLocal(bad, []byte("p")); err == nil {
			t.Fatalf("altered at %d: opens", i)
		}
	}
}

func FuzzDecodeLocal(f *testing.F) {
	plain, _ := EncodeLocal(Local{Device: key(1), Root: key(2)}, nil, Cost{})
	f.Add(plain)
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := DecodeLocal(b, nil) // no passphrase, so that no hostile cost is paid
		if err != nil {
			return
		}
		again, err := EncodeLocal(l, nil, Cost{})
		if err != nil || !bytes.Equal(again, b) {
			t.Fatal("two files say the same")
		}
	})
}
