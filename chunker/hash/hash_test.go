package hash

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

// eachWay runs a test with the instructions that this processor has, and without.
func eachWay(t *testing.T, test func(t *testing.T)) {
	had := wide
	defer func() { wide = had }()
	for _, wide = range []bool{had, false} {
		t.Run(fmt.Sprint("wide=", wide), test)
	}
}

// lengths are on both sides of each border.
func lengths() []int {
	out := []int{0, 1, 64, mostChunks*guts.ChunkSize + 1}
	for _, chunks := range []int{1, 15, 16, 17, 31, 32, 33, 47, 255, 256, 257, 511, 1023, 1024, 1025, 1119, 1120} {
		n := chunks * guts.ChunkSize
		out = append(out, n-1, n, n+1, n+20, n+63, n+64, n+65, n+1023)
	}
	return out
}

// keyed is what the library says.
func keyed(key [32]byte, p []byte) (out [32]byte) {
	h, _ := blake3.NewKeyed(key[:])
	_, _ = h.Write(p)
	h.Sum(out[:0])
	return out
}

func TestSumIsBLAKE3(t *testing.T) {
	all, key := random(mostChunks*guts.ChunkSize+2048), [32]byte(random(32))
	eachWay(t, func(t *testing.T) {
		for _, n := range lengths() {
			for _, at := range []int{0, 1, 60} { // wherever it lies
				p := all[at : at+n]
				if Sum(p) != blake3.Sum256(p) {
					t.Errorf("another hash of %d bytes at %d", n, at)
				}
				if Keyed(key, p) != keyed(key, p) {
					t.Errorf("another keyed hash of %d bytes at %d", n, at)
				}
			}
		}
	})
}

func TestLeaves(t *testing.T) {
	p := random(150 * LeafSize)
	eachWay(t, func(t *testing.T) {
		for _, n := range []int{0, 1, 2, 3, 16, 69, 70, 71, 150} {
			for _, first := range []uint64{0, 48, 1<<32 - 8, 1 << 40} { // the low half of a number carries over
				got := AppendLeaves([]CV{{1}}, p[:n*LeafSize], first)
				if len(got) != n+1 || got[0] != (CV{1}) {
					t.Fatalf("%d hashes of %d leaves behind one", len(got), n)
				}
				for i, cv := range got[1:] {
					leaf := guts.CompressBuffer((*[LeafSize]byte)(p[i*LeafSize:]), LeafSize, &guts.IV, first+uint64(i)*lanes, 0)
					if cv != guts.ChainingValue(leaf) {
						t.Fatalf("leaf %d of %d from chunk %d has another hash", i, n, first)
					}
				}
			}
		}
	})
}

func TestLevel(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		for n := 1; n < 100; n++ {
			cvs := make([]CV, n)
			for i := range cvs {
				cvs[i] = CV{uint32(i), 7, uint32(n)}
			}
			before := fmt.Sprint(cvs)
			got := Level(cvs)
			if fmt.Sprint(cvs) != before {
				t.Fatal("Level altered what it was given")
			}
			for i, cv := range got {
				want := cvs[2*i]
				if 2*i+1 < n {
					want = guts.ChainingValue(guts.ParentNode(cvs[2*i], cvs[2*i+1], &guts.IV, 0))
				}
				if cv != want {
					t.Fatalf("pair %d of %d has another hash", i, n)
				}
			}
			if len(got) != (n+1)/2 {
				t.Fatalf("%d above %d", len(got), n)
			}
		}
	})
}

func FuzzSum(f *testing.F) {
	f.Add(random(64), uint16(300), uint16(3))
	f.Fuzz(func(t *testing.T, seed []byte, chunks, rest uint16) {
		if len(seed) == 0 {
			return
		}
		n := int(chunks)%mostChunks*guts.ChunkSize + int(rest)%guts.ChunkSize
		p := bytes.Repeat(seed, n/len(seed)+1)[:n]
		if Sum(p) != blake3.Sum256(p) {
			t.Errorf("another hash of %d bytes", n)
		}
	})
}

// The largest block, as it is hashed here and by the library.
func BenchmarkSum(b *testing.B) {
	p := random(1<<20 + 20)
	for name, sum := range map[string]func([]byte) [32]byte{"ours": Sum, "library": blake3.Sum256} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				sum(p)
			}
		})
	}
}

func BenchmarkLeaves(b *testing.B) {
	p := random(4 << 20)
	had := wide
	defer func() { wide = had }()
	for _, wide = range []bool{had, false} {
		b.Run(fmt.Sprint("wide=", wide), func(b *testing.B) {
			b.SetBytes(int64(len(p)))
			for b.Loop() {
				AppendLeaves(nil, p, 0)
			}
		})
	}
}
