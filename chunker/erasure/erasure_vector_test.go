package erasure

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/zeebo/blake3"

	"skep/test/vectors"
)

// keystream is n bytes that everyone can make: the output of BLAKE3 of a text.
func keystream(text string, n int) []byte {
	h := blake3.New()
	_, _ = h.WriteString(text)
	out := make([]byte, n)
	_, _ = h.Digest().Read(out)
	return out
}

// TestCodingVectors pins each shard of codings of both kinds by its root.
func TestCodingVectors(t *testing.T) {
	for _, c := range []struct {
		class Class
		code  Coding
	}{
		{16, NewCoding(1, 3)},
		{18, NewCoding(3, 7)}, // the last data shard is padded
		{20, NewCoding(10, 20)},
		{21, NewCoding(32, 55)}, // leopard
		{20, Coding{Kind: Leopard, K: 4, N: 7}},
	} {
		pack := keystream("skep pack", c.class.Size())
		shards := c.code.Split(c.class, pack, nil)
		if err := c.code.Encode(shards); err != nil {
			t.Fatal(err)
		}
		var roots []byte
		for _, s := range shards {
			r := RootOf(s)
			roots = append(roots, r[:]...)
		}
		name := fmt.Sprintf("coding-%d-%d-of-%d-class-%d", c.code.Kind, c.code.K, c.code.N, c.class)
		vectors.Check(t, name, fmt.Sprintf(`roots of the %d shards of a pack of class %d, kind %d, k = %d; the pack is the output of BLAKE3 of "skep pack"`,
			c.code.N, c.class, c.code.Kind, c.code.K), roots)

		// Any k rebuild the rest: here the last k.
		kept, want := make([][]byte, c.code.N), make([]bool, c.code.N)
		for i := range shards {
			if want[i] = i < int(c.code.N-c.code.K); !want[i] {
				kept[i] = bytes.Clone(shards[i])
			}
		}
		if err := c.code.Reconstruct(kept, want); err != nil {
			t.Fatal(err)
		}
		for i := range kept {
			if !bytes.Equal(kept[i], shards[i]) {
				t.Errorf("%s: shard %d is rebuilt differently", name, i)
			}
		}
	}
}

// TestTreeVectors pins trees and slices of shards whose last leaf is short.
func TestTreeVectors(t *testing.T) {
	shard := keystream("skep shard", 100_032)
	outboard, root := Outboard(shard)
	vectors.Check(t, "outboard", `root, then the outboard tree of 100,032 bytes, the output of BLAKE3 of "skep shard"`, append(root[:], outboard...))

	const off, n = 64 << 10, 16 << 10
	slice := baoSlice(t, shard, outboard, off, n)
	sum := blake3.Sum256(slice)
	vectors.Check(t, "slice", "BLAKE3 of the slice of the same for 16 KiB at 64 KiB; its length, 8 bytes little endian", binary.LittleEndian.AppendUint64(sum[:], uint64(len(slice))))
	got := make([]byte, n)
	if err := ReadSlice(bytes.NewReader(slice), got, len(shard), off, root); err != nil || !bytes.Equal(got, shard[off:off+n]) {
		t.Error(err)
	}
}

// TestSampleVectors pins which leaves an audit looks at.
func TestSampleVectors(t *testing.T) {
	shard := keystream("skep shard", 4<<20)
	var nonce Nonce
	copy(nonce[:], keystream("skep nonce", 32))
	s := newSampler(nonce, len(shard), RootOf(shard))
	var leaves []byte
	for range MaxSamples {
		off, n := s.Range()
		leaves = binary.BigEndian.AppendUint16(leaves, uint16(off/leafSize))
		s.Next(shard[off : off+n])
	}
	vectors.Check(t, "samples", `numbers of the 16 sampled leaves, 2 bytes each, of 4 MiB from "skep shard" under the nonce from "skep nonce"`, leaves)
}
