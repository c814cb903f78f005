package dag

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/multiformats/go-multihash"

	"skep/chunker/link"
)

// The property tests compare what is built here with what the builders of
// go-unixfsnode build.

func init() {
	chunk.Register("model", func(r io.Reader, _ string) (chunk.Splitter, error) { return r.(*modelReader), nil })
}

// stockLimit is up to how many chunks a file of the property tests is built by
// the stock builder, too: it looks at every byte.
func stockLimit() int {
	if testing.Short() {
		return 200
	}
	return 1000
}

func stockShards(t testing.TB, s *memStore, entries []entry) link.Link {
	t.Helper()
	sys := LinkSystem(context.Background(), s, s)
	l, _, err := builder.BuildUnixFSShardedDirectory(256, multihash.MURMUR3X64_64, stockEntries(t, entries), &sys.LinkSystem)
	if err != nil {
		t.Fatal(err)
	}
	return resolve(t, sys, l)
}

func stockEntries(t testing.TB, entries []entry) []dagpb.PBLink {
	t.Helper()
	var out []dagpb.PBLink
	for _, e := range entries {
		c, err := cid.Cast(e.cid)
		if err != nil {
			t.Fatal(err)
		}
		l, err := builder.BuildUnixFSDirectoryEntry(e.name, int64(e.tsize), hide(c))
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, l)
	}
	return out
}

func stockFile(t testing.TB, s *memStore, m model) link.Link {
	t.Helper()
	if m.size == 0 {
		return link.Link{}
	}
	sys := LinkSystem(context.Background(), s, fakeLeaves{s})
	l, _, err := builder.BuildUnixFSFile(&modelReader{m: m}, "model", &sys.LinkSystem)
	if err != nil {
		t.Fatal(err)
	}
	return resolve(t, sys, l)
}

// modelReader is a splitter that yields the chunks of a model.
type modelReader struct {
	m  model
	at int64
}

func (r *modelReader) Read([]byte) (int, error) { return 0, io.EOF }
func (r *modelReader) Reader() io.Reader        { return r }
func (r *modelReader) NextBytes() ([]byte, error) {
	if r.at == chunksOf(r.m.size) {
		return nil, io.EOF
	}
	c := chunkOfByte(r.m.bytes[r.at])[:bytesOf(r.at, 1, r.m.size)]
	r.at++
	return c, nil
}

var byteChunks = map[byte][]byte{}

func chunkOfByte(b byte) []byte {
	if byteChunks[b] == nil {
		byteChunks[b] = bytes.Repeat([]byte{b}, ChunkSize)
	}
	return byteChunks[b]
}

// TestStockDeepFile builds a file of three levels, whose last chunk hangs at the
// root.
func TestStockDeepFile(t *testing.T) {
	if testing.Short() {
		t.Skip("hashes 30 GiB of zeroes")
	}
	s, m := newStore(), model{}.resize(174*174*ChunkSize+1)
	if stockFile(t, s, m) != rebuilt(t, s, m) {
		t.Fatal("the stock builder builds something else")
	}
}

// TestStockBuilderFile builds a real file with the stock builder.
func TestStockBuilderFile(t *testing.T) {
	ctx, s := context.Background(), newStore()
	content := make([]byte, 2*ChunkSize+12345)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(content)
	sys := LinkSystem(ctx, s, s)
	l, _, err := builder.BuildUnixFSFile(bytes.NewReader(content), "size-1048576", &sys.LinkSystem)
	if err != nil {
		t.Fatal(err)
	}
	root := resolve(t, sys, l)
	if !bytes.Equal(readStock(t, s, root), content) {
		t.Fatal("the stock reader reads something else")
	}
	f, err := WriteFile(ctx, s, File{}, int64(len(content)), []Run{{From: 0, To: 3}}, func(ctx context.Context, i int64) (link.Link, error) {
		return s.Put(ctx, link.Raw, content[i*ChunkSize:min((i+1)*ChunkSize, int64(len(content)))], nil)
	})
	if err != nil || f.Root != root {
		t.Fatalf("WriteFile gives another root: %v", err)
	}
}

// TestStockBuilderDirs builds directories of both forms with the stock builder,
// which picks the form by rules of its own, and edits them further.
func TestStockBuilderDirs(t *testing.T) {
	ctx := context.Background()
	for _, n := range []int{1, 50, 3000} {
		s, m := newStore(), dirModel{}
		var entries []entry
		for i := range n {
			name, rec := fmt.Sprint(i), smallInode(i)
			if i%10 == 9 {
				rec = bigInode(i)
			}
			e, err := putEntry(ctx, s, newNamer(testNames).stored(name), &rec)
			if err != nil {
				t.Fatal(err)
			}
			m[name], entries = rec, append(entries, e)
		}
		sys := LinkSystem(ctx, s, s)
		l, _, err := builder.BuildUnixFSDirectory(stockEntries(t, entries), &sys.LinkSystem)
		if err != nil {
			t.Fatal(err)
		}
		root := resolve(t, sys, l)
		checkDir(t, s, root, m)
		rec := smallInode(7)
		changes := []Change{{"0", nil}, {"new", &rec}}
		if root, err = EditDir(ctx, s, testNames, root, changes); err != nil {
			t.Fatal(err)
		}
		m.apply(changes)
		checkDir(t, s, root, m)
	}
}
