package dag

import (
	"context"
	"fmt"
	"testing"

	"skep/chunker/link"
)

// report gives the blocks and the bytes of plaintext that each operation read and
// wrote.
func report(b *testing.B, s *memStore) {
	n := float64(b.N)
	b.ReportMetric(float64(s.gets)/n, "gets/op")
	b.ReportMetric(float64(s.getB)/n, "getB/op")
	b.ReportMetric(float64(s.puts)/n, "puts/op")
	b.ReportMetric(float64(s.putB)/n, "putB/op")
}

func benchStore() *memStore {
	s := newStore()
	s.trusting = true
	return s
}

func benchFile(b *testing.B, s *memStore, size int64) File {
	b.Helper()
	f, err := WriteFile(context.Background(), s, File{}, size, []Run{{From: 0, To: chunksOf(size)}}, func(_ context.Context, i int64) (link.Link, error) {
		return rawLink(int(i)), nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return f
}

// BenchmarkEditFile changes one chunk of a file of 1 GiB. The chunk itself is not
// counted.
func BenchmarkEditFile(b *testing.B) {
	s := benchStore()
	f := benchFile(b, s, 1<<30)
	s.resetCounts()
	for i := 0; b.Loop(); i++ {
		at := int64(i*7919) % f.Chunks()
		_, err := WriteFile(context.Background(), s, f, f.Size, []Run{{From: at, To: at + 1}}, func(context.Context, int64) (link.Link, error) {
			return rawLink(1<<24 + i), nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	report(b, s)
}

// BenchmarkChunks lists all chunks of a file of 1 GiB.
func BenchmarkChunks(b *testing.B) {
	s := benchStore()
	f := benchFile(b, s, 1<<30)
	s.resetCounts()
	for b.Loop() {
		if err := Chunks(context.Background(), s, f, 0, f.Chunks(), func(int64, link.Link) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s)
}

// BenchmarkSparseFile makes a file of 50 GiB that is one hole.
func BenchmarkSparseFile(b *testing.B) {
	s := benchStore()
	const size = 50 << 30
	for b.Loop() {
		if _, err := WriteFile(context.Background(), s, File{}, size, []Run{{From: 0, To: chunksOf(size), Leaf: rawLink(1)}}, nil); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s)
}

const benchEntries = 100_000

// benchInode is a record as files usually have.
func benchInode(n int) Inode {
	return Inode{
		ID: 0x1234_0000_0000_0000 + uint64(n), Mode: ModeRegular | 0o644, UID: 1000, GID: 1000, Nlink: 1, Size: 1000 + int64(n%ChunkSize),
		Mtime: Time{1_700_000_000, 123456789}, Ctime: Time{1_700_000_000, 123456789}, Btime: Time{1_700_000_000, 123456789},
		Content: rawLink(n),
	}
}

func benchChanges() []Change {
	changes := make([]Change, benchEntries)
	for i := range changes {
		rec := benchInode(i)
		changes[i] = Change{fmt.Sprintf("IMG_%06d.jpeg", i), &rec}
	}
	return changes
}

func benchDir(b *testing.B, s *memStore) link.Link {
	b.Helper()
	root, err := EditDir(context.Background(), s, testNames, link.Link{}, benchChanges())
	if err != nil {
		b.Fatal(err)
	}
	return root
}

// BenchmarkBuildDir builds a directory of 100,000 entries.
func BenchmarkBuildDir(b *testing.B) {
	s := benchStore()
	for b.Loop() {
		benchDir(b, s)
	}
	report(b, s)
}

// BenchmarkBuilders builds directories of 10 and of 100,000 entries from nothing: by
// EditDir, by the stock builder, and, for what both cannot do without, only makes
// the entries.
func BenchmarkBuilders(b *testing.B) {
	for _, n := range []int{10, benchEntries} {
		changes := benchChanges()[:n]
		s := benchStore()
		entriesOf := func() []entry {
			edits, err := editsOf(context.Background(), s, testNames, changes)
			if err != nil {
				b.Fatal(err)
			}
			entries := make([]entry, len(edits))
			for i := range edits {
				entries[i] = edits[i].entry
			}
			return entries
		}
		b.Run(fmt.Sprintf("ours/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := EditDir(context.Background(), s, testNames, link.Link{}, changes); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("stock/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				stockDir(b, s, entriesOf(), n > 1000)
			}
		})
		b.Run(fmt.Sprintf("entries/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				entriesOf()
			}
		})
	}
}

// BenchmarkCheckDir reads a directory of 100,000 entries by both readers.
func BenchmarkCheckDir(b *testing.B) {
	s := benchStore()
	root := benchDir(b, s)
	s.resetCounts()
	for b.Loop() {
		n := 0
		if err := CheckDir(context.Background(), s, testNames, root, func(string, Inode) error { n++; return nil }); err != nil || n != benchEntries {
			b.Fatal(n, err)
		}
	}
	report(b, s)
}

// BenchmarkEditDir changes one entry of a directory of 100,000.
func BenchmarkEditDir(b *testing.B) {
	s := benchStore()
	root := benchDir(b, s)
	s.resetCounts()
	for i := 0; b.Loop(); i++ {
		rec := benchInode(1<<22 + i)
		changes := []Change{{fmt.Sprintf("IMG_%06d.jpeg", i*7919%benchEntries), &rec}}
		if _, err := EditDir(context.Background(), s, testNames, root, changes); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s)
}

// BenchmarkEditDirAll changes all entries of a directory of 100,000 in one batch.
func BenchmarkEditDirAll(b *testing.B) {
	s := benchStore()
	root, changes := benchDir(b, s), benchChanges()
	s.resetCounts()
	for i := 0; b.Loop(); i++ {
		for k := range changes {
			changes[k].Record.Size = int64(i + 2)
		}
		var err error
		if root, err = EditDir(context.Background(), s, testNames, root, changes); err != nil {
			b.Fatal(err)
		}
	}
	report(b, s)
}

// BenchmarkLookupDir looks up one entry of a directory of 100,000.
func BenchmarkLookupDir(b *testing.B) {
	s := benchStore()
	root := benchDir(b, s)
	s.resetCounts()
	for i := 0; b.Loop(); i++ {
		if _, ok, err := LookupDir(context.Background(), s, testNames, root, fmt.Sprintf("IMG_%06d.jpeg", i*7919%benchEntries)); err != nil || !ok {
			b.Fatal(ok, err)
		}
	}
	report(b, s)
}

// BenchmarkWalkDir walks a directory of 100,000 entries.
func BenchmarkWalkDir(b *testing.B) {
	s := benchStore()
	root := benchDir(b, s)
	s.resetCounts()
	for b.Loop() {
		n := 0
		if err := WalkDir(context.Background(), s, root, func(string, Inode) error { n++; return nil }); err != nil || n != benchEntries {
			b.Fatal(n, err)
		}
	}
	report(b, s)
}

// BenchmarkInode encodes and decodes a record.
func BenchmarkInode(b *testing.B) {
	rec := benchInode(5)
	enc, err := rec.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.Run("Encode", func(b *testing.B) {
		for b.Loop() {
			_, _ = rec.Encode()
		}
		b.ReportMetric(float64(len(enc)), "B/record")
	})
	b.Run("Decode", func(b *testing.B) {
		for b.Loop() {
			_, _ = DecodeInode(enc)
		}
	})
}
