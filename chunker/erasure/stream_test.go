package erasure

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"
)

func TestTreeIsOutboard(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 40*leafSize).Draw(t, "size")
		data := randomBytes(uint64(size), size)
		want, wantRoot := Outboard(data)
		if len(want) != OutboardSize(size) {
			t.Fatalf("OutboardSize says %d, outboard has %d", OutboardSize(size), len(want))
		}
		tree := NewTree(size)
		for rest := data; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			if _, err := tree.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got, root, err := tree.Sum()
		if err != nil || root != wantRoot || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: the tree differs from the outboard: %v", size, err)
		}
		if _, err := tree.Write([]byte{1}); !errors.Is(err, ErrLength) {
			t.Fatalf("a byte too many: %v", err)
		}
	})
	if _, _, err := NewTree(1).Sum(); !errors.Is(err, ErrLength) {
		t.Errorf("a byte too few: %v", err)
	}
}

func TestSliceStreams(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 30*leafSize).Draw(t, "size")
		data := randomBytes(uint64(size), size)
		out, root := Outboard(data)
		off := rapid.IntRange(0, size-1).Draw(t, "offset")
		n := rapid.IntRange(1, size-off).Draw(t, "length")
		want := baoSlice(t, data, out, off, n)
		if len(want) != SliceSize(size, off, n) {
			t.Fatalf("slice has %d bytes, SliceSize says %d", len(want), SliceSize(size, off, n))
		}
		var got bytes.Buffer
		if err := WriteSlice(&got, bytes.NewReader(data), out, off, n); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("WriteSlice differs from the library: %v", err)
		}
		dst := make([]byte, n)
		if err := ReadSlice(iotest.HalfReader(&got), dst, size, off, root); err != nil || !bytes.Equal(dst, data[off:off+n]) {
			t.Fatalf("ReadSlice: %v", err)
		}
		bad := bytes.Clone(want)
		bad[rapid.IntRange(0, len(bad)-1).Draw(t, "at")] ^= 1 << rapid.IntRange(0, 7).Draw(t, "bit")
		if err := ReadSlice(bytes.NewReader(bad), dst, size, off, root); !errors.Is(err, ErrProof) {
			t.Fatalf("altered slice: %v", err)
		}
		if err := ReadSlice(bytes.NewReader(want[:len(want)-1]), dst, size, off, root); err == nil {
			t.Fatal("short slice was accepted")
		}
	})
}

func TestWriteSliceSeesDamage(t *testing.T) {
	data := randomBytes(1, 9*leafSize+100)
	out, _ := Outboard(data)
	for _, at := range []int{0, leafSize, 5*leafSize + 7, len(data) - 1} {
		bad := bytes.Clone(data)
		bad[at] ^= 1
		if err := WriteSlice(io.Discard, bytes.NewReader(bad), out, 0, len(bad)); !errors.Is(err, ErrProof) {
			t.Errorf("byte %d altered: %v", at, err)
		}
	}
	if err := WriteSlice(io.Discard, bytes.NewReader(data[:len(data)-1]), out, 0, len(data)); !errors.Is(err, ErrProof) {
		t.Errorf("shard cut short: %v", err)
	}
	if err := WriteSlice(io.Discard, bytes.NewReader(data), out, 1, len(data)); !errors.Is(err, ErrProof) {
		t.Errorf("range past the end: %v", err)
	}
}

func TestSamplesProve(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 70*leafSize).Draw(t, "size")
		data := randomBytes(uint64(size), size)
		out, root := Outboard(data)
		nonce := Nonce{byte(rapid.IntRange(0, 255).Draw(t, "nonce"))}
		count := rapid.IntRange(1, 20).Draw(t, "count")
		var answer bytes.Buffer
		if err := WriteSamples(&answer, bytes.NewReader(data), out, nonce, root, count); err != nil {
			t.Fatal(err)
		}
		if answer.Len() > SamplesSize(size, count) {
			t.Fatalf("answer has %d bytes, SamplesSize says at most %d", answer.Len(), SamplesSize(size, count))
		}
		whole := bytes.Clone(answer.Bytes())
		if err := ReadSamples(&answer, nonce, size, root, count); err != nil || answer.Len() != 0 {
			t.Fatalf("right answer: %v, %d bytes left", err, answer.Len())
		}
		if err := ReadSamples(bytes.NewReader(whole), Nonce{1, 1}, size, root, count); Leaves(size) > 8 && count > 8 && err == nil {
			t.Fatal("the answer to another nonce was accepted")
		}
	})
}

// Samples spread over the shard: with as many as the leaves, about 1−1/e of
// them are met. A chain that turns in a circle would meet far fewer.
func TestSamplesSpread(t *testing.T) {
	size := 256 * leafSize
	data := randomBytes(3, size)
	seen := map[int]bool{}
	s := newSampler(Nonce{7}, size, RootOf(data))
	for range 256 {
		off, n := s.Range()
		seen[off] = true
		s.Next(data[off : off+n])
	}
	if len(seen) < 130 {
		t.Errorf("256 samples met %d of 256 leaves", len(seen))
	}
}

func FuzzReadSlice(f *testing.F) {
	data := randomBytes(1, 100_000)
	out, root := Outboard(data)
	f.Add(baoSlice(f, data, out, 20_000, 40_000), len(data), 20_000, 40_000)
	f.Fuzz(func(t *testing.T, slice []byte, size, off, n int) {
		if size > 1<<20 || size < 0 || off > 1<<21 || n < 0 || n > 1<<20 {
			return
		}
		dst := make([]byte, n)
		if ReadSlice(bytes.NewReader(slice), dst, size, off, root) == nil && !bytes.Equal(dst, data[off:off+n]) {
			t.Fatal("accepted bytes that the root does not have")
		}
	})
}
