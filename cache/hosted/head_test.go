package hosted

import (
	"bytes"
	"encoding/hex"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/storetest"
)

func sampleHead(t testing.TB) (head, int) {
	o := storetest.NewOwner(1, 16, 1, 2)
	p := o.Pack(t, 3)
	outboard, _ := erasure.Outboard(p.Shards[1])
	return head{Slot: 1, Manifest: p.Word, outboard: outboard}, p.Manifest.ShardSize()
}

func TestHead(t *testing.T) {
	h, size := sampleHead(t)
	b := h.encode()
	if len(b) != h.size(size) || len(b)%page != 0 {
		t.Errorf("head of %d bytes, size says %d", len(b), h.size(size))
	}
	got, err := decodeHead(b, size)
	if err != nil || got.Slot != 1 || !bytes.Equal(got.Manifest, h.Manifest) || !bytes.Equal(got.outboard, h.outboard) {
		t.Errorf("head came back as %+v, %v", got, err)
	}
}

// The format of files that are on disks does not change by accident.
func TestHeadGolden(t *testing.T) {
	h, _ := sampleHead(t)
	sum := blake3.Sum256(h.encode())
	if got, want := hex.EncodeToString(sum[:]), goldenHead; got != want {
		t.Errorf("head of the sample hashes to %s, not %s", got, want)
	}
	lease := encodeWord(leaseMagic, leaseFile{Slot: 2, Last: 3, Lease: []byte{4}})
	if got := hex.EncodeToString(lease); got != goldenLease {
		t.Errorf("lease file is %s", got)
	}
}

func TestFileNames(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		number := uint16(rapid.IntRange(0, group.MaxPacks-1).Draw(t, "number"))
		slot := uint8(rapid.IntRange(0, erasure.MaxShards-1).Draw(t, "slot"))
		length := rapid.Int64Range(page+1, maxFile).Draw(t, "length")
		n, s, l, ok := parseFileName(fileName(number, slot, length))
		if !ok || n != number || s != slot || l != length {
			t.Fatalf("%d %d %d came back as %d %d %d %v", number, slot, length, n, s, l, ok)
		}
	})
	for _, bad := range []string{"", "lease", "000-000-0", "1-2-70000", "300-000-70000", "000-200-70000", "000-000-70000x", "000-000-070000", "../000-000-70000"} {
		if _, _, _, ok := parseFileName(bad); ok {
			t.Errorf("%q was taken for a shard", bad)
		}
	}
}

func FuzzDecodeHead(f *testing.F) {
	h, size := sampleHead(f)
	f.Add(h.encode(), size)
	f.Fuzz(func(t *testing.T, b []byte, size int) {
		if size < 0 || size > 1<<26 {
			return
		}
		if got, err := decodeHead(b, size); err == nil && !bytes.Equal(got.encode(), b) {
			t.Fatal("a head that is not what encode gives was accepted")
		}
		_, _, _ = peekManifest(b)
	})
}

func FuzzDecodeWord(f *testing.F) {
	f.Add(encodeWord(leaseMagic, leaseFile{Slot: 2, Lease: []byte{4}}))
	f.Add(encodeWord(recordMagic, recordFile{Record: []byte{4}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l leaseFile
		if decodeWord(b, leaseMagic, maxLeaseFile, &l) == nil && !bytes.Equal(encodeWord(leaseMagic, l), b) {
			t.Fatal("lease file that is not what encodeWord gives was accepted")
		}
		var r recordFile
		_ = decodeWord(b, recordMagic, maxRecordFile, &r)
	})
}

func TestHeadCacheIsBounded(t *testing.T) {
	var c headCache
	for i := range 100 {
		c.add(group.ID{byte(i)}, 1, head{outboard: make([]byte, 256<<10)})
	}
	if c.bytes > maxHeads || c.order.Len() != len(c.byKey) || c.order.Len() < 10 {
		t.Errorf("%d heads of %d bytes", c.order.Len(), c.bytes)
	}
	if _, ok := c.get(group.ID{99}, 1); !ok {
		t.Error("the last one is gone")
	}
	for i := range 100 {
		c.remove(group.ID{byte(i)}, 1)
	}
	if c.bytes != 0 || c.order.Len() != 0 {
		t.Errorf("%d bytes of nothing", c.bytes)
	}
}

const (
	goldenHead  = "470b1e56ef034ac37d417332f6c625972464efef5efe00ecd34e62b12fb46ec2"
	goldenLease = "736b65702f6c7331840258200000000000000000000000000000000000000000000000000000000000000000034104d2904e419b050cfe724b68303c4ed024c2ad766f4bd4309ed7cd9e343c39a45c"
)
