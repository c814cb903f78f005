package dag

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	dagpb "github.com/ipld/go-codec-dagpb"

	"skep/chunker/block"
	"skep/chunker/link"
)

// fuzzFile returns a file's root node and what its parent knows of it.
func fuzzFile(chunks int64, tail int64) (sub, []byte) {
	t := sub{n: chunks, size: (chunks-1)*ChunkSize + tail, tsize: -1}
	s := span(chunks)
	var children []sub
	for at := int64(0); at < chunks; at += s {
		c := sub{link: rawLink(int(at)), n: min(s, chunks-at)}
		c.size = bytesOf(at, c.n, t.size)
		c.tsize = c.size
		if c.n > 1 {
			c.link.Codec = link.DagPB
			c.tsize += 100
		}
		children = append(children, c)
	}
	node, _ := fileNode(children)
	return t, node.encode()
}

// decodeFile is what reading a file's node does; it checks what must hold of a node
// that is accepted.
func decodeFile(t *testing.T, f sub, plain []byte) error {
	children, err := childrenOf(f, plain)
	if err != nil {
		if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("not ErrCorrupt: %v", err)
		}
		return err
	}
	node, size := fileNode(children)
	if size != f.size || !bytes.Equal(node.encode(), plain) {
		t.Fatal("accepted in another than the canonical form")
	}
	var n int64
	for _, c := range children {
		if n += c.n; c.n >= f.n || c.n < 1 {
			t.Fatal("a child is no smaller than its parent")
		}
	}
	if n != f.n {
		t.Fatalf("%d chunks, want %d", n, f.n)
	}
	return nil
}

func TestCorruptFile(t *testing.T) {
	for _, chunks := range []int64{2, 174, 175, 349} {
		f, plain := fuzzFile(chunks, 5)
		if err := decodeFile(t, f, plain); err != nil {
			t.Fatal(err)
		}
		for _, wrong := range []sub{
			{n: chunks + 1, size: f.size + ChunkSize, tsize: -1},
			{n: chunks, size: f.size + 1, tsize: -1},
			{n: chunks, size: f.size, tsize: f.size},
			{n: 175 * 174, size: 175 * 174 * ChunkSize, tsize: -1},
		} {
			if decodeFile(t, wrong, plain) == nil {
				t.Errorf("%d chunks pass for %+v", chunks, wrong)
			}
		}
		for at := 0; at < len(plain); at += 1 + at/50 {
			// Only a bit of a hash or key may change unnoticed: the link is then
			// another, and its block is checked against it.
			bad := bytes.Clone(plain)
			bad[at] ^= 0x20
			_ = decodeFile(t, f, bad)
			if decodeFile(t, f, plain[:at]) == nil {
				t.Errorf("cut to %d bytes: accepted", at)
			}
		}
		if decodeFile(t, f, append(bytes.Clone(plain), 0)) == nil {
			t.Error("a trailing byte is accepted")
		}
	}
}

func TestCorruptDir(t *testing.T) {
	rec := smallInode(1)
	b, _ := rec.Encode()
	name := newNamer(testNames).stored("name")
	other := newNamer(testNames).stored("other")
	if name > other {
		name, other = other, name
	}
	big := cidOf(link.Link{Codec: link.CBOR})
	shard := cidOf(link.Link{Codec: link.DagPB})
	slotName := func(n string) string { return fmt.Sprintf("%02X", slotAt(murmur(n), 0)) }
	plain := func(links ...pbLink) []byte { return (&pbNode{links, dirData}).encode() }
	hamt := func(links ...pbLink) []byte {
		var slots []slot
		for _, l := range links {
			var k uint8
			_, _ = fmt.Sscanf(l.name[:min(2, len(l.name))], "%X", &k)
			slots = append(slots, slot{index: k})
		}
		return (&pbNode{links, hamtData(slots)}).encode()
	}
	good := pbLink{cid: recordCID(b), name: name}
	for what, p := range map[string][]byte{
		"plain":                 plain(good),
		"plain with big record": plain(pbLink{big, name, 1025}),
		"hamt":                  hamt(pbLink{good.cid, slotName(name) + name, 0}),
		"hamt with a shard":     hamt(pbLink{shard, "7F", 500}),
	} {
		if _, err := decodeDir(p); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, p := range map[string][]byte{
		"empty plain directory":    plain(),
		"unsorted":                 plain(pbLink{good.cid, other, 0}, good),
		"twice":                    plain(good, good),
		"no prefix":                plain(pbLink{good.cid, "name", 0}),
		"prefix alone":             plain(pbLink{good.cid, name[:prefixLen], 0}),
		"slash in the name":        plain(pbLink{good.cid, name + "/", 0}),
		"dot dot":                  plain(pbLink{good.cid, name[:prefixLen] + "..", 0}),
		"entry that is a node":     plain(pbLink{shard, name, 1025}),
		"entry that is a chunk":    plain(pbLink{cidOf(rawLink(1)), name, 1025}),
		"size of an inline record": plain(pbLink{good.cid, name, 5}),
		"big record without size":  plain(pbLink{big, name, 0}),
		"big record, small size":   plain(pbLink{big, name, 1024}),
		"big record, large size":   plain(pbLink{big, name, MaxRecord + 1}),
		"large inline record":      plain(pbLink{recordCID(make([]byte, 1025)), name, 0}),
		"public link":              plain(pbLink{rawLink(1).Hash.Address().Bytes(), name, 0}),
		"no CID":                   plain(pbLink{[]byte("x"), name, 0}),
		"empty CID":                plain(pbLink{nil, name, 0}),
		"file":                     (&pbNode{nil, fileData(0, nil)}).encode(),
		"no type":                  (&pbNode{[]pbLink{good}, nil}).encode(),
		"header with more":         (&pbNode{[]pbLink{good}, append(bytes.Clone(dirData), 0x18, 0)}).encode(),
		"empty hamt":               hamt(),
		"wrong slot":               hamt(pbLink{good.cid, fmt.Sprintf("%02X", slotAt(murmur(name), 0)^1) + name, 0}),
		"lower case slot":          hamt(pbLink{shard, "7f", 500}),
		"slot of one digit":        hamt(pbLink{shard, "7", 500}),
		"slot without name":        hamt(pbLink{shard, "", 500}),
		"shard twice":              hamt(pbLink{shard, "7F", 500}, pbLink{shard, "7F", 500}),
		"shard that is a record":   hamt(pbLink{good.cid, "7F", 500}),
		"shard of a wrong codec":   hamt(pbLink{big, "7F", 500}),
		"shard without end":        hamt(pbLink{shard, "7F", maxShardTsize + 1}),
		"bitmap of another shard":  (&pbNode{[]pbLink{{shard, "7F", 500}}, hamtData([]slot{{index: 3}})}).encode(),
	} {
		if _, err := decodeDir(p); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	deep := place{}
	for range maxDepth - 1 {
		deep = deep.below(0)
	}
	p := hamt(pbLink{shard, "7F", 500})
	if _, err := decodeShard(deep, 500+uint64(len(p)), p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a shard below the last: %v", err)
	}
	p = hamt(pbLink{good.cid, fmt.Sprintf("%02X", slotAt(murmur(name), 1)) + name, 0})
	if _, err := decodeShard(place{}.below(slotAt(murmur(name), 0)), uint64(len(p)), p); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a shard of one entry: %v", err)
	}
}

// everywhere is a Getter that has one block for all links.
type everywhere []byte

func (e everywhere) Get(ctx context.Context, _ link.Link) ([]byte, error) { return e, ctx.Err() }

// readDir does all that reads a directory; it must end, and fail as it should.
func readDir(t *testing.T, plain []byte) {
	ctx, root := context.Background(), link.Link{Codec: link.DagPB}
	err := WalkDir(ctx, everywhere(plain), root, func(name string, _ Inode) error { return checkName(name) })
	_, _, err2 := LookupDir(ctx, everywhere(plain), testNames, root, "name")
	s := struct {
		everywhere
		Putter
	}{plain, benchStore()}
	rec := smallInode(1)
	_, err3 := EditDir(ctx, s, testNames, root, []Change{{"name", &rec}, {Name: "other"}})
	for _, err := range []error{err, err2, err3} {
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("neither ErrCorrupt nor ErrVersion: %v", err)
		}
	}
}

func FuzzDir(f *testing.F) {
	s := newStore()
	for _, n := range []int{1, 3, 1000} {
		manyEntries(f, s, n)
	}
	for l, ct := range s.blocks {
		if plain, err := block.Open(l, ct, nil); err == nil && l.Codec == link.DagPB && len(plain) < 4000 {
			f.Add(plain)
		}
	}
	f.Fuzz(func(t *testing.T, plain []byte) {
		d, err := decodeDir(plain)
		if err == nil {
			n := dirNode(d.entries)
			if d.slots != nil {
				n = shardNode(d.slots)
			}
			if !bytes.Equal(n.encode(), plain) {
				t.Fatal("accepted in another than the canonical form")
			}
		} else if !errors.Is(err, ErrCorrupt) {
			t.Fatalf("not ErrCorrupt: %v", err)
		}
		_, _ = decodeShard(place{}.below(1), uint64(len(plain)), plain)
		readDir(t, plain)
	})
}

func FuzzFile(f *testing.F) {
	for _, chunks := range []int64{2, 5, 175} {
		s, plain := fuzzFile(chunks, 5)
		f.Add(plain, s.size)
	}
	f.Fuzz(func(t *testing.T, plain []byte, size int64) {
		if size <= ChunkSize {
			return
		}
		file := File{link.Link{Codec: link.DagPB}, size}
		_ = decodeFile(t, file.tree(), plain)
		to := min(file.Chunks(), 1000)
		err := Chunks(context.Background(), everywhere(plain), file, 0, to, func(int64, link.Link) error { return nil })
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatalf("not ErrCorrupt: %v", err)
		}
	})
}

func FuzzInode(f *testing.F) {
	for _, n := range goldenInodes {
		f.Add(n.encode())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := DecodeInode(b)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
				t.Fatalf("neither ErrCorrupt nor ErrVersion: %v", err)
			}
			return
		}
		if again, err := n.Encode(); err != nil || !bytes.Equal(again, b) {
			t.Fatalf("accepted in another than the canonical form: %v", err)
		}
	})
}

// foreign is a node with a link to what is no block of ours, as long as one that is.
func foreign(codec byte) []byte {
	to := append([]byte{1, codec}, bytes.Repeat([]byte{9}, sealedDigest-2)...)
	n := pbNode{links: []pbLink{{cid: to, tsize: 5}}, data: fileData(5, nil)}
	return n.encode()
}

func FuzzRefs(f *testing.F) {
	_, plain := fuzzFile(3, 5)
	f.Add(link.DagPB, plain)
	n := dirNode(goldenEntries())
	f.Add(link.DagPB, n.encode())
	rec := goldenInodes["file"]
	f.Add(link.CBOR, rec.encode())
	f.Add(link.Raw, []byte("chunk"))
	for _, codec := range []byte{0, 7} {
		f.Add(link.DagPB, foreign(codec))
	}
	f.Fuzz(func(t *testing.T, codec uint64, plain []byte) {
		refs, err := Refs(codec, plain)
		if err != nil && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("neither ErrCorrupt nor ErrVersion: %v", err)
		}
		seen := map[link.Link]bool{}
		for _, l := range refs {
			if l.IsZero() || seen[l] || sealedPrefixes[l.Codec] == nil {
				t.Fatal("a link twice, or none, or of no block of ours")
			}
			seen[l] = true
		}
		if codec == link.DagPB && err == nil {
			nb := dagpb.Type.PBNode.NewBuilder()
			if err := dagpb.DecodeBytes(nb, plain); err != nil {
				t.Fatalf("the stock decoder refuses: %v", err)
			}
			if err := decodeNode(dagpb.Type.PBNode.NewBuilder(), bytes.NewReader(plain)); err != nil {
				t.Fatalf("the link system refuses: %v", err)
			}
		}
	})
}
