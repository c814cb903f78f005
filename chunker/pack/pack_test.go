package pack

import (
	"bytes"
	"errors"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/block"
	"skep/chunker/link"
	"skep/chunker/secret"
)

func from(p []byte) func(int, int) ([]byte, error) {
	return func(off, n int) ([]byte, error) {
		if off < 0 || n < 0 || off+n > len(p) {
			return nil, errors.New("range outside the pack")
		}
		return p[off : off+n], nil
	}
}

func TestPackIsListedFromItsEnd(t *testing.T) {
	sealer, read := block.NewSealer(secret.Key{1}), secret.Key{2}
	rapid.Check(t, func(t *rapid.T) {
		b := NewBuilder(20, nil)
		var plains [][]byte
		for range rapid.IntRange(0, 30).Draw(t, "blocks") {
			p := rapid.SliceOfN(rapid.Byte(), 0, 9000).Draw(t, "plain")
			s, err := sealer.Seal(link.Raw, p, nil)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.Add(s); err != nil {
				t.Fatal(err)
			}
			plains = append(plains, p)
		}
		class, pack, err := b.Seal(read)
		if err != nil || len(pack) != class.Size() {
			t.Fatalf("%d bytes in class %v: %v", len(pack), class, err)
		}
		entries, err := ReadIndex(read, class, from(pack))
		if err != nil || len(entries) != len(plains) {
			t.Fatalf("%d entries: %v", len(entries), err)
		}
		for i, e := range entries {
			got, err := block.Open(e.Link, pack[e.Offset:e.Offset+e.Length], nil)
			if err != nil || !bytes.Equal(got, plains[i]) {
				t.Fatalf("block %d: %v", i, err)
			}
		}
		if _, err := ReadIndex(secret.Key{3}, class, from(pack)); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("another secret lists the pack: %v", err)
		}
	})
}

// A full pack still has room for its index, to the last byte.
func TestFullPack(t *testing.T) {
	sealer := block.NewSealer(secret.Key{1})
	b := NewBuilder(17, nil)
	for i := 0; ; i++ {
		s, _ := sealer.Seal(link.Raw, []byte{byte(i), byte(i >> 8)}, nil)
		if !b.Fits(len(s.Ciphertext)) {
			if _, err := b.Add(s); !errors.Is(err, ErrFull) {
				t.Fatal("took a block that does not fit")
			}
			break
		}
		if _, err := b.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	class, pack, err := b.Seal(secret.Key{2})
	if err != nil || class != 17 {
		t.Fatalf("class %v: %v", class, err)
	}
	if got, err := ReadIndex(secret.Key{2}, class, from(pack)); err != nil || len(got) != len(b.Entries()) {
		t.Fatalf("%d of %d entries: %v", len(got), len(b.Entries()), err)
	}
}

func FuzzParseIndex(f *testing.F) {
	e := Entry{Offset: 16, Length: 5}
	f.Add(e.append(nil), 100)
	f.Fuzz(func(t *testing.T, b []byte, end int) {
		entries, err := parseIndex(b, end&0xffffff)
		if err != nil {
			return
		}
		for _, e := range entries {
			if int(e.Offset)+int(e.Length) > end&0xffffff {
				t.Fatal("an entry leads out of the pack")
			}
		}
	})
}
