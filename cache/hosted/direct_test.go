package hosted_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"testing"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/storetest"
)

// Ranges that are read past the page cache are the same, and damage in them is
// seen, also where a shard does not end with a page.
func TestLargeRanges(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 64<<20)
	o := storetest.NewOwner(1, 21, 3, 4)
	l, word := o.Lease(2, storetest.Until)
	if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
		t.Fatal(err)
	}
	p := o.Pack(t, 0)
	put(t, s, p)
	size := p.Manifest.ShardSize()
	if size%4096 == 0 {
		t.Fatalf("shards of %d bytes end with a page", size)
	}
	for _, r := range [][2]int{{0, size}, {0, 512 << 10}, {128 << 10, size - 128<<10}, {1, size - 2}} {
		var b bytes.Buffer
		if err := s.WriteSlice(&b, o.ID, 0, r[0], r[1]); err != nil {
			t.Fatalf("range %v: %v", r, err)
		}
		got := make([]byte, r[1])
		if err := erasure.ReadSlice(&b, got, size, r[0], p.Manifest.Roots[1]); err != nil || b.Len() > 0 || !bytes.Equal(got, p.Shards[1][r[0]:r[0]+r[1]]) {
			t.Fatalf("range %v: %v", r, err)
		}
		b.Reset()
		if err := s.WriteRange(&b, o.ID, 0, r[0], r[1]); err != nil || !bytes.Equal(b.Bytes(), p.Shards[1][r[0]:r[0]+r[1]]) {
			t.Fatalf("bare range %v: %v", r, err)
		}
	}
	for _, fromEnd := range []int{1, size / 2, size} {
		file := shardFiles(t, dir)[0]
		flip(t, file, fileSize(t, file)-int64(fromEnd))
		if err := s.WriteSlice(io.Discard, o.ID, 0, 0, size); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("altered %d bytes before the end: %v", fromEnd, err)
		}
		put(t, s, p)
	}
}
