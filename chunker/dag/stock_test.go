package dag

import (
	"bytes"
	"context"
	"fmt"
	"hash"
	"io"
	"math/rand/v2"
	"testing"

	chunk "github.com/ipfs/boxo/chunker"
	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode/data/builder"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/multiformats/go-multihash"

	"skep/chunker/link"
)

// The property tests compare what is built here with what the builders of
// go-unixfsnode build.

func init() {
	chunk.Register("model", func(r io.Reader, _ string) (chunk.Splitter, error) { return r.(*modelReader), nil })
}

func stockShards(t testing.TB, s *memStore, entries []entry) link.Link {
	t.Helper()
	return stockDir(t, s, entries, true)
}

// stockDir builds a directory with the stock builder.
func stockDir(t testing.TB, s *memStore, entries []entry, sharded bool) link.Link {
	t.Helper()
	sys := LinkSystem(context.Background(), s, s)
	var l ipld.Link
	var err error
	if sharded {
		l, _, err = builder.BuildUnixFSShardedDirectory(256, multihash.MURMUR3X64_64, stockEntries(t, entries), &sys.LinkSystem)
	} else {
		l, _, err = builder.BuildUnixFSDirectory(stockEntries(t, entries), &sys.LinkSystem)
	}
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

// stockFile is the root that the stock builder gives a model's file.
func stockFile(t testing.TB, s *memStore, m model) link.Link {
	t.Helper()
	if m.size == 0 {
		return link.Link{}
	}
	sys := fakingChunks(LinkSystem(context.Background(), nil, s))
	l, _, err := builder.BuildUnixFSFile(&modelReader{m: m}, "model", &sys.LinkSystem)
	if err != nil {
		t.Fatal(err)
	}
	return resolve(t, sys, l)
}

// fakingChunks makes a system take chunks of a model without looking at all their
// bytes, so that files of many GiB are soon built. It serves one builder at a time.
func fakingChunks(sys *System) *System {
	var chunk *fakedChunk // that is stored now, unless a node is
	choose, open := sys.HasherChooser, sys.StorageWriteOpener
	sys.HasherChooser = func(p datamodel.LinkPrototype) (hash.Hash, error) {
		if chunk = nil; codecOf(p) != link.Raw {
			return choose(p)
		}
		chunk = new(fakedChunk)
		return chunk, nil
	}
	sys.StorageWriteOpener = func(lc ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
		if chunk == nil {
			return open(lc)
		}
		faked := chunk
		return io.Discard, func(l ipld.Link) error {
			sys.sealed[l.(cidlink.Link).Cid] = faked.link()
			return nil
		}, nil
	}
	return sys
}

// fakedChunk is the placeholder's hash of a model's chunk: it knows all of it by
// its first byte and its size.
type fakedChunk struct {
	hash.Hash // only Write and Sum are used
	first     byte
	size      int64
}

func (c *fakedChunk) Write(p []byte) (int, error) {
	if c.size == 0 {
		c.first = p[0]
	}
	c.size += int64(len(p))
	return len(p), nil
}

func (c *fakedChunk) link() link.Link { return fakeChunk(c.first, c.size) }

func (c *fakedChunk) Sum(b []byte) []byte {
	l := c.link()
	return append(b, l.Hash[:]...)
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
	if !bytes.Equal(readStock(t, s, File{root, int64(len(content))}), content) {
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
		root := stockDir(t, s, entries, false)
		checkDir(t, s, root, m)
		rec := smallInode(7)
		changes := []Change{{"0", nil}, {"new", &rec}}
		var err error
		if root, err = EditDir(ctx, s, testNames, root, changes); err != nil {
			t.Fatal(err)
		}
		m.apply(changes)
		checkDir(t, s, root, m)
	}
}
