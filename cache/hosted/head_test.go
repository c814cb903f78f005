package hosted

import (
	"bytes"
	"testing"

	"github.com/zeebo/blake3"
	"pgregory.net/rapid"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/storetest"
	"skep/test/vectors"
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
func TestVectors(t *testing.T) {
	h, size := sampleHead(t)
	vectors.Check(t, "head", "head of a shard's file, skep/sh1: pack 3 of the owner of seed 1, class 16, 1 of 2, slot 1", h.encode())
	if got, err := decodeHead(h.encode(), size); err != nil || got.Slot != 1 {
		t.Errorf("head: %v", err)
	}
	o := storetest.NewOwner(1, 16, 1, 2)
	l, word := o.Lease(5, storetest.Until, storetest.Dead(1, 255))
	lease := encodeLease(&group.Holding{Slot: 2, Dead: l.Dead, Last: l.Until + 1, Word: word, From: group.PeerKey{7}})
	vectors.Check(t, "lease", "file of a lease, skep/ls2: slot 2, packs 1 and 255 dead, brought by 07 00 …", lease)
	if f, got, err := decodeLease(lease, o.ID); err != nil || got != l || f.Slot != 2 || f.From != (group.PeerKey{7}) {
		t.Errorf("lease: %+v, %v", f, err)
	}
	r, rec := storetest.Record(5, 1, storetest.Until, 100)
	file := encodeWord(recordMagic, recordFile{From: group.PeerKey{7}, Record: rec})
	vectors.Check(t, "record", "file of a slot record, skep/rc1, brought by 07 00 …", file)
	var f recordFile
	if err := decodeWord(file, recordMagic, maxRecordFile, &f); err != nil || r.Number != 1 || !bytes.Equal(f.Record, rec) {
		t.Errorf("record: %v", err)
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

// A name of a file is taken for a shard's only if it is just as fileName makes
// it.
func FuzzParseFileName(f *testing.F) {
	f.Add("017-003-4214784")
	f.Add("000-000-070000")
	f.Fuzz(func(t *testing.T, name string) {
		if n, slot, length, ok := parseFileName(name); ok && fileName(n, slot, length) != name {
			t.Fatalf("%q was taken", name)
		}
	})
}

func FuzzDecodeLease(f *testing.F) {
	o := storetest.NewOwner(1, 16, 1, 2)
	l, word := o.Lease(5, storetest.Until)
	f.Add(encodeLease(&group.Holding{Slot: 2, Last: l.Until, Word: word})[len(leaseMagic):])
	f.Fuzz(func(t *testing.T, body []byte) {
		b := append([]byte(leaseMagic), body...)
		sum := blake3.Sum256(b) // the parser behind the checksum is what is tried
		file, got, err := decodeLease(append(b, sum[:]...), o.ID)
		if err == nil && (got.Group != o.ID || file.Slot >= erasure.MaxShards) {
			t.Fatalf("%+v of %+v was taken", got, file)
		}
	})
}
