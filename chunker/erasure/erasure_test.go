package erasure

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"lukechampine.com/blake3"
	"lukechampine.com/blake3/bao"
	"pgregory.net/rapid"
)

func randomBytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	c := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	_, _ = c.Read(b)
	return b
}

func TestOutboardIsBao(t *testing.T) {
	for _, n := range []int{1, 1024, 16 << 10, 16<<10 + 1, 64 << 10, 96<<10 + 64, 1 << 20, 349568} {
		data := randomBytes(uint64(n), n)
		out, root := Outboard(data)
		wantOut, wantRoot := bao.EncodeBuf(data, groupLog, true)
		if !bytes.Equal(out, wantOut) || root != Root(wantRoot) || root != Root(blake3.Sum256(data)) {
			t.Errorf("%d bytes: outboard or root differ from the library's", n)
		}
	}
}

// baoSlice is the slice that the library makes for a range of a shard.
func baoSlice(t rapid.TB, data, outboard []byte, offset, length int) []byte {
	t.Helper()
	from, to := leafRange(len(data), offset, length)
	var out bytes.Buffer
	if err := bao.ExtractSlice(&out, bytes.NewReader(data[from:to]), bytes.NewReader(outboard), groupLog, uint64(offset), uint64(length)); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestAnyKShardsRebuild(t *testing.T) {
	for _, c := range []struct {
		k, n  int
		class Class
	}{{1, 1, 16}, {1, 4, 16}, {2, 5, 17}, {3, 6, 18}, {4, 7, 20}, {4, 4, 18}, {16, 30, 20}, {32, 55, 21}} {
		coding := NewCoding(c.k, c.n)
		if !coding.Valid(c.class) {
			t.Fatalf("%v is not valid for %v", coding, c.class)
		}
		pack := randomBytes(uint64(c.n), c.class.Size())
		shards := coding.Split(c.class, pack, nil)
		if err := coding.Encode(shards); err != nil {
			t.Fatal(err)
		}
		for round := range 8 {
			r := rand.New(rand.NewPCG(uint64(round), uint64(c.n)))
			have := make([][]byte, c.n)
			want := make([]bool, c.n)
			for i := range want {
				want[i] = true
			}
			for _, i := range r.Perm(c.n)[:c.k] {
				have[i] = bytes.Clone(shards[i])
			}
			if err := coding.Reconstruct(have, want); err != nil {
				t.Fatal(err)
			}
			for i := range have {
				if !bytes.Equal(have[i], shards[i]) {
					t.Fatalf("%v: shard %d came back wrong", coding, i)
				}
			}
		}
		have := make([][]byte, c.n)
		for i := range c.k - 1 {
			have[i] = shards[i]
		}
		if err := coding.Reconstruct(have, make([]bool, c.n)); !errors.Is(err, ErrTooFew) {
			t.Errorf("%v with k-1 shards: %v", coding, err)
		}
	}
}

// Ranges of shards rebuild as whole shards do: a reader fetches no more than
// the range it wants.
func TestRangesRebuild(t *testing.T) {
	for _, coding := range []Coding{NewCoding(4, 7), NewCoding(32, 55)} {
		class := Class(21)
		shards := coding.Split(class, randomBytes(3, class.Size()), nil)
		if err := coding.Encode(shards); err != nil {
			t.Fatal(err)
		}
		lo, hi := 4096, 4096+8192
		have := make([][]byte, coding.N)
		for i := 1; i <= int(coding.K); i++ {
			have[i] = bytes.Clone(shards[i][lo:hi])
		}
		want := make([]bool, coding.N)
		want[0] = true
		if err := coding.Reconstruct(have, want); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(have[0], shards[0][lo:hi]) {
			t.Errorf("%v: range came back wrong", coding)
		}
	}
}

func TestClasses(t *testing.T) {
	for size, want := range map[int]Class{0: 16, 1: 16, 65536: 16, 65537: 17, 1 << 20: 20, 64 << 20: 26} {
		if c, ok := ClassFor(size); c != want || !ok {
			t.Errorf("ClassFor(%d) = %d, %v; want %d", size, c, ok, want)
		}
	}
	if _, ok := ClassFor(64<<20 + 1); ok {
		t.Error("a pack over 64 MiB has a class")
	}
}

func BenchmarkOutboard(b *testing.B) {
	data := randomBytes(1, 4<<20)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		Outboard(data)
	}
}

func BenchmarkEncode4of7(b *testing.B) {
	c := NewCoding(4, 7)
	pack := randomBytes(1, 16<<20)
	shards := c.Split(24, pack, nil)
	b.SetBytes(16 << 20)
	for b.Loop() {
		_ = c.Encode(shards)
	}
}

// Coding and hashing a leaf at a time gives what the one after the other does,
// whatever was in the memory that the shards were made in.
func TestEncodeRoots(t *testing.T) {
	for _, c := range []struct {
		k, n  int
		class Class
	}{{1, 1, 16}, {1, 3, 17}, {2, 5, 17}, {3, 6, 18}, {3, 7, 20}, {4, 4, 18}, {5, 5, 19}, {32, 55, 21}} {
		coding := NewCoding(c.k, c.n)
		pack := randomBytes(uint64(c.n), c.class.Size())
		want := coding.Split(c.class, pack, nil)
		if err := coding.Encode(want); err != nil {
			t.Fatal(err)
		}
		room := randomBytes(9, coding.Room(c.class))
		got := coding.Split(c.class, pack, room)
		roots, err := coding.EncodeRoots(got)
		if err != nil {
			t.Fatal(err)
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) || roots[i] != RootOf(want[i]) {
				t.Errorf("%v of %v: shard %d differs", coding, c.class, i)
			}
		}
		if used := len(room); used > 0 && &room[used-1] != &got[c.n-1][coding.ShardSize(c.class)-1] {
			t.Errorf("%v of %v: room is left over", coding, c.class)
		}
	}
}
