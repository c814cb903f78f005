package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/link"
)

// model is a file as its chunk contents, kept small: a whole chunk is ChunkSize
// times one byte, and its link is made from that byte alone.
type model struct {
	size  int64
	bytes []byte // one for each chunk
}

// fakeChunk is the link of a chunk of size times b; no such chunk is stored.
func fakeChunk(b byte, size int64) link.Link { return rawLink(int(b) | int(size)<<8) }

func (m model) leaf(_ context.Context, i int64) (link.Link, error) {
	return fakeChunk(m.bytes[i], bytesOf(i, 1, m.size)), nil
}

func (m model) resize(size int64) model {
	out := model{size, make([]byte, chunksOf(size))}
	copy(out.bytes, m.bytes)
	return out
}

// changedRuns lists the chunks that differ between two models, as runs, with a
// Leaf for runs of zero bytes if holes is set.
func changedRuns(old, m model, holes bool) []Run {
	var runs []Run
	for i := int64(0); i < chunksOf(m.size); i++ {
		if i < chunksOf(old.size) && old.bytes[i] == m.bytes[i] && bytesOf(i, 1, old.size) == bytesOf(i, 1, m.size) {
			continue
		}
		r := Run{From: i, To: i + 1}
		if holes && m.bytes[i] == 0 {
			r.Leaf, _ = m.leaf(context.Background(), i)
		}
		if k := len(runs) - 1; k >= 0 && runs[k].To == i && runs[k].Leaf == r.Leaf {
			runs[k].To++
		} else {
			runs = append(runs, r)
		}
	}
	return runs
}

// TestLayout writes files around the borders of the layout at once.
func TestLayout(t *testing.T) {
	s := newStore()
	for _, n := range []int64{0, 1, 2, 173, 174, 175, 176, 348, 349, 174 * 174, 174*174 + 1, 174*174 + 2, 174*174 + 175} {
		for _, tail := range []int64{ChunkSize, 1} {
			m := model{}.resize(max(0, (n-1)*ChunkSize+tail))
			f, err := WriteFile(context.Background(), s, File{}, m.size, changedRuns(model{}, m, false), m.leaf)
			if err != nil {
				t.Fatal(err)
			}
			if f.Root != stockFile(t, s, m) {
				t.Errorf("%d chunks, tail %d: roots differ", n, tail)
			}
			if err := CheckFile(context.Background(), s, f); err != nil {
				t.Errorf("%d chunks, tail %d: %v", n, tail, err)
			}
		}
	}
}

// TestResize grows and shrinks files across the borders of the layout.
func TestResize(t *testing.T) {
	ctx, s := context.Background(), newStore()
	var sizes []int64
	for _, chunks := range []int64{0, 1, 2, 173, 174, 175, 348, 349, 174*174 - 1, 174 * 174, 174*174 + 1} {
		sizes = append(sizes, chunks*ChunkSize)
		if chunks > 0 {
			sizes = append(sizes, chunks*ChunkSize-7)
		}
	}
	files, want := make([]File, len(sizes)), make([]link.Link, len(sizes))
	for i, size := range sizes {
		m := model{}.resize(size)
		f, err := WriteFile(ctx, s, File{}, size, changedRuns(model{}, m, false), m.leaf)
		if err != nil {
			t.Fatal(err)
		}
		files[i], want[i] = f, stockFile(t, s, m)
	}
	for i, from := range sizes {
		for k, to := range sizes {
			old, m := model{}.resize(from), model{}.resize(to)
			s.resetCounts()
			f, err := WriteFile(ctx, s, files[i], to, changedRuns(old, m, false), m.leaf)
			if err != nil || f.Root != want[k] {
				t.Errorf("from %d to %d bytes: another root: %v", from, to, err)
			}
			if s.gets > 4 {
				t.Errorf("from %d to %d bytes: %d blocks read", from, to, s.gets)
			}
		}
	}
}

// TestFileEdits writes files by random sequences of edits and compares each with
// the same content written at once. The chunks are fake.
func TestFileEdits(t *testing.T) {
	tt := t
	rapid.Check(t, func(t *rapid.T) {
		s := newStore()
		var m model
		var f File
		for step := range rapid.IntRange(1, 4).Draw(t, "steps") {
			next := drawEdit(t, m)
			runs := changedRuns(m, next, rapid.Bool().Draw(t, "holes"))
			runs = withExtra(t, runs, next)
			reached := reads(s, func() {
				if err := ReachFile(context.Background(), s, f, next.size, runs); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
			})
			var got File
			read := reads(s, func() {
				var err error
				if got, err = WriteFile(context.Background(), s, f, next.size, runs, next.leaf); err != nil {
					t.Fatalf("step %d: %v", step, err)
				}
			})
			if !maps.Equal(reached, read) {
				t.Fatalf("step %d: %d nodes were reached, and %d read", step, len(reached), len(read))
			}
			if want := stockFile(tt, s, next); got.Root != want {
				t.Fatalf("step %d: %d to %d bytes: root differs from that of the file built at once", step, m.size, next.size)
			}
			m, f = next, got
			checkChunks(t, s, f, m)
			if err := CheckFile(context.Background(), s, f); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// reads returns what a call reads of a store.
func reads(s *memStore, call func()) map[link.Link]bool {
	out := map[link.Link]bool{}
	s.fail = func(l link.Link) error { out[l] = true; return nil }
	call()
	s.fail = nil
	return out
}

func drawEdit(t *rapid.T, m model) model {
	chunks := rapid.OneOf(rapid.Int64Range(0, 5), rapid.Int64Range(170, 180), rapid.Int64Range(340, 360), rapid.Int64Range(0, 600)).Draw(t, "chunks")
	size := chunks * ChunkSize
	if rapid.Bool().Draw(t, "partial") {
		size += rapid.SampledFrom([]int64{1, 1000, ChunkSize - 1}).Draw(t, "tail")
	}
	if rapid.IntRange(0, 2).Draw(t, "resize") == 0 {
		size = m.size
	}
	next := m.resize(size)
	for range rapid.IntRange(0, 6).Draw(t, "runs") {
		if len(next.bytes) == 0 {
			break
		}
		at := rapid.IntRange(0, len(next.bytes)-1).Draw(t, "at")
		n := rapid.OneOf(rapid.Just(1), rapid.IntRange(1, 400)).Draw(t, "n")
		b := rapid.SampledFrom([]byte{0, 1, 2}).Draw(t, "byte")
		for i := at; i < min(at+n, len(next.bytes)); i++ {
			next.bytes[i] = b
		}
	}
	return next
}

// withExtra adds a chunk that did not change to the runs, if it fits.
func withExtra(t *rapid.T, runs []Run, m model) []Run {
	if len(runs) > 0 && runs[0].From > 0 && rapid.Bool().Draw(t, "extra") {
		at := rapid.Int64Range(0, runs[0].From-1).Draw(t, "extraAt")
		return append([]Run{{From: at, To: at + 1}}, runs...)
	}
	return runs
}

func checkChunks(t *rapid.T, s *memStore, f File, m model) {
	n := f.Chunks()
	from := rapid.Int64Range(0, n).Draw(t, "from")
	to := rapid.Int64Range(from, n).Draw(t, "to")
	at := from
	err := Chunks(context.Background(), s, f, from, to, func(i int64, l link.Link) error {
		want, _ := m.leaf(context.Background(), i)
		if i != at || l != want {
			return fmt.Errorf("chunk %d came at %d with a wrong link", i, at)
		}
		at++
		return nil
	})
	if err != nil || at != to {
		t.Fatalf("chunks %d to %d ended at %d: %v", from, to, at, err)
	}
}

// TestStockReader reads a real file, edited, with the stock reader.
func TestStockReader(t *testing.T) {
	ctx, s := context.Background(), newStore()
	content := make([]byte, 3*ChunkSize+12345)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	leaf := func(ctx context.Context, i int64) (link.Link, error) {
		return s.Put(ctx, link.Raw, content[i*ChunkSize:min((i+1)*ChunkSize, int64(len(content)))], nil)
	}
	f, err := WriteFile(ctx, s, File{}, int64(len(content)), []Run{{From: 0, To: 4}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	content[ChunkSize+5] ^= 1
	if f, err = WriteFile(ctx, s, f, int64(len(content)), []Run{{From: 1, To: 2}}, leaf); err != nil {
		t.Fatal(err)
	}
	got := readStock(t, s, f)
	if !bytes.Equal(got, content) {
		t.Fatal("the stock reader reads something else")
	}
}

// readStock reads a file with go-unixfsnode.
func readStock(t testing.TB, s *memStore, f File) []byte {
	t.Helper()
	r, err := OpenFile(context.Background(), s, f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestHugeSparseFile(t *testing.T) {
	s := newStore()
	const size = 50 << 30
	hole := fakeChunk(0, ChunkSize)
	asked := 0
	leaf := func(_ context.Context, i int64) (link.Link, error) { asked++; return fakeChunk(1, ChunkSize), nil }
	f, err := WriteFile(context.Background(), s, File{}, size, []Run{{From: 0, To: size / ChunkSize, Leaf: hole}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	if s.puts != 5 || asked != 0 {
		t.Fatalf("a hole of 50 GiB took %d blocks and %d chunks", s.puts, asked)
	}
	if f.Root != stockFile(t, s, model{}.resize(size)) {
		t.Fatal("root differs from that of the file built at once")
	}
	s.resetCounts()
	if f, err = WriteFile(context.Background(), s, f, size, []Run{{From: 20000, To: 20001}}, leaf); err != nil {
		t.Fatal(err)
	}
	if s.puts != 3 || s.gets != 3 || asked != 1 {
		t.Fatalf("one chunk took %d gets, %d puts", s.gets, s.puts)
	}
	s.resetCounts()
	n := 0
	err = Chunks(context.Background(), s, f, 0, f.Chunks(), func(i int64, l link.Link) error {
		if (l == hole) == (i == 20000) {
			return errors.New("wrong link")
		}
		n++
		return nil
	})
	if err != nil || n != size/ChunkSize || s.gets > 12 {
		t.Fatalf("%d chunks, %d gets: %v", n, s.gets, err)
	}
}

func TestWriteFileRefuses(t *testing.T) {
	s := newStore()
	ctx := context.Background()
	leaf := func(context.Context, int64) (link.Link, error) { return rawLink(1), nil }
	f, err := WriteFile(ctx, s, File{}, 2*ChunkSize+1, []Run{{From: 0, To: 3}}, leaf)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		old  File
		size int64
		runs []Run
	}{
		"grown without its last chunk":   {f, 3 * ChunkSize, nil},
		"grown beyond the runs":          {f, 5 * ChunkSize, []Run{{From: 2, To: 4}}},
		"shrunk without its last chunk":  {f, ChunkSize + 1, nil},
		"overlapping runs":               {f, f.Size, []Run{{From: 0, To: 2}, {From: 1, To: 3}}},
		"unsorted runs":                  {f, f.Size, []Run{{From: 1, To: 2}, {From: 0, To: 1}}},
		"empty run":                      {f, f.Size, []Run{{From: 1, To: 1}}},
		"run beyond the end":             {f, f.Size, []Run{{From: 2, To: 4}}},
		"hole over a short chunk":        {f, f.Size, []Run{{From: 1, To: 3, Leaf: rawLink(3)}}},
		"hole that is no chunk":          {f, f.Size, []Run{{From: 1, To: 2, Leaf: f.Root}}},
		"negative size":                  {f, -1, nil},
		"root of the wrong codec":        {File{rawLink(1), f.Size}, f.Size, nil},
		"no root":                        {File{Size: 1}, 1, nil},
		"negative run":                   {f, f.Size, []Run{{From: -1, To: 1}}},
		"sizes that the tree denies":     {File{f.Root, 2 * ChunkSize}, 2 * ChunkSize, []Run{{From: 0, To: 1}}},
		"more chunks than the tree has":  {File{f.Root, 4 * ChunkSize}, 4 * ChunkSize, []Run{{From: 0, To: 1}}},
		"many more chunks than its tree": {File{f.Root, 4 << 40}, 4 << 40, []Run{{From: 0, To: 1}}},
	} {
		if _, err := WriteFile(ctx, s, c.old, c.size, c.runs, leaf); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// What needs no chunk is accepted.
	if g, err := WriteFile(ctx, s, f, 2*ChunkSize, nil, nil); err != nil || g.Size != 2*ChunkSize {
		t.Errorf("cut at the border of a chunk: %v", err)
	}
	if g, err := WriteFile(ctx, s, f, 0, nil, nil); err != nil || g != (File{}) {
		t.Errorf("emptied: %v %v", g, err)
	}
	if g, err := WriteFile(ctx, s, f, f.Size, nil, nil); err != nil || g != f {
		t.Errorf("unchanged: %v %v", g, err)
	}
	s.resetCounts()
	if g, err := WriteFile(ctx, s, f, f.Size, []Run{{From: 1, To: 2}}, leaf); err != nil || g != f || s.puts != 0 {
		t.Errorf("the same chunk again: %v %v, %d puts", g, err, s.puts)
	}
}
