package dag

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"strings"
	"testing"

	"skep/chunker/link"
)

// murmur3 is invertible: for any first block of 16 bytes there is a second that
// leads to a given state. colliding returns n names of 32 bytes with one hash.
func colliding(t testing.TB, n int) []string {
	t.Helper()
	const target1, target2 = 0x0123456789abcdef, 0xfedcba9876543210
	var names []string
	for i := 0; len(names) < n; i++ {
		first := fmt.Sprintf("%016x", i)
		h1, h2 := mixBlock(0, 0, binary.LittleEndian.Uint64([]byte(first)), binary.LittleEndian.Uint64([]byte(first[8:])))
		k1, k2 := blockTo(h1, h2, target1, target2)
		second := binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint64(nil, k1), k2)
		if name := first + string(second); checkName(name) == nil {
			names = append(names, name)
		}
	}
	for _, name := range names {
		if murmur(name) != murmur(names[0]) {
			t.Fatal("the names do not collide")
		}
	}
	return names
}

const murmurC1, murmurC2 = 0x87c37b91114253d5, 0x4cf5ad432745937f

func mixBlock(h1, h2, k1, k2 uint64) (uint64, uint64) {
	h1 ^= bits.RotateLeft64(k1*murmurC1, 31) * murmurC2
	h1 = (bits.RotateLeft64(h1, 27)+h2)*5 + 0x52dce729
	h2 ^= bits.RotateLeft64(k2*murmurC2, 33) * murmurC1
	h2 = (bits.RotateLeft64(h2, 31)+h1)*5 + 0x38495ab5
	return h1, h2
}

// blockTo is the block that mixes h1, h2 to t1, t2.
func blockTo(h1, h2, t1, t2 uint64) (k1, k2 uint64) {
	var inv5, inv1, inv2 uint64 = inverse(5), inverse(murmurC1), inverse(murmurC2)
	was1 := bits.RotateLeft64((t1-0x52dce729)*inv5-h2, -27)
	was2 := bits.RotateLeft64((t2-0x38495ab5)*inv5-t1, -31)
	return bits.RotateLeft64((was1^h1)*inv2, -31) * inv1, bits.RotateLeft64((was2^h2)*inv1, -33) * inv2
}

// inverse of an odd number modulo 2^64, by Newton.
func inverse(x uint64) uint64 {
	y := x
	for range 6 {
		y *= 2 - x*y
	}
	return y
}

// TestCollidingNames stores names that collide in the whole of murmur3.
func TestCollidingNames(t *testing.T) {
	s, m := newStore(), dirModel{}
	var changes []Change
	for i, name := range colliding(t, 2000) {
		rec := smallInode(i)
		changes = append(changes, Change{name, &rec})
	}
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, changes)
	if err != nil {
		t.Fatal(err)
	}
	m.apply(changes)
	checkDir(t, s, root, m)
	if deep := depth(t, s, root); deep > 4 {
		t.Errorf("the directory is %d shards deep", deep)
	}
}

// depth is the number of levels of shards of a directory.
func depth(t testing.TB, s *memStore, root link.Link) int {
	t.Helper()
	ctx := context.Background()
	d, err := loadDir(ctx, s, root)
	if err != nil {
		t.Fatal(err)
	}
	deepest := 1
	var walk func(p place, slots []slot)
	walk = func(p place, slots []slot) {
		deepest = max(deepest, p.depth+1)
		for i := range slots {
			if slots[i].isShard() {
				below, err := loadShard(ctx, s, p, &slots[i])
				if err != nil {
					t.Fatal(err)
				}
				walk(p.below(slots[i].index), below)
			}
		}
	}
	walk(place{}, d.slots)
	return deepest
}

// TestTooDeep shows what the prefix prevents: stored names that collide.
func TestTooDeep(t *testing.T) {
	s := newStore()
	var edits []edit
	for i, name := range colliding(t, 2) {
		rec := smallInode(i)
		e, err := putEntry(context.Background(), s, name, &rec)
		if err != nil {
			t.Fatal(err)
		}
		edits = append(edits, edit{murmur(name), e})
	}
	slices.SortFunc(edits, compareEdits)
	h := newDirEditor(s).hamt
	if _, err := h.build(context.Background(), place{}, edits); !errors.Is(err, ErrTooDeep) {
		t.Fatalf("names that collide are built: %v", err)
	}
	slots, err := h.build(context.Background(), place{}, edits[:1])
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.apply(context.Background(), h.plan(context.Background(), place{}, slots, edits[1:])); !errors.Is(err, ErrTooDeep) {
		t.Fatalf("names that collide are added: %v", err)
	}
}

func TestStoredNames(t *testing.T) {
	a, b := newNamer(testNames), newNamer([32]byte{1})
	name := strings.Repeat("é", 100)
	if got := a.stored(name); len(got) != prefixLen+len(name) || got != a.stored(name) || got == b.stored(name) || !strings.HasSuffix(got, name) {
		t.Fatalf("stored as %q", got)
	}
	if back, err := realName(a.stored(name)); err != nil || back != name {
		t.Fatalf("%q %v", back, err)
	}
	for _, bad := range []string{"", "AAAAAAAAAAA", "AAAAAAAAAA!x", "AAAAAAAAAAAa/b", "AAAAAAAAAAA.", "AAAAAAAAAABx", "AAAA\nAAAAAAx", "AAAAAAAAAAA" + strings.Repeat("x", 256)} {
		if _, err := realName(bad); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
