package dag

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/ipfs/go-unixfsnode/data"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"

	"skep/chunker/link"
)

// pbNodeTo is a file node with one link.
func pbNodeTo(t testing.TB, l ipld.Link) ipld.Node {
	t.Helper()
	n, err := qp.BuildMap(dagpb.Type.PBNode, 2, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Links", qp.List(1, func(la datamodel.ListAssembler) {
			qp.ListEntry(la, qp.Map(3, func(ma datamodel.MapAssembler) {
				qp.MapEntry(ma, "Hash", qp.Link(l))
				qp.MapEntry(ma, "Name", qp.String(""))
				qp.MapEntry(ma, "Tsize", qp.Int(5))
			}))
		}))
		qp.MapEntry(ma, "Data", qp.Bytes([]byte{8, byte(data.Data_File)}))
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestRefsReachAll counts what Refs reaches from the roots of some files and
// directories: it must be all blocks that were put.
func TestRefsReachAll(t *testing.T) {
	ctx, s := context.Background(), newStore()
	leaf := func(_ context.Context, i int64) (link.Link, error) {
		return s.Put(ctx, link.Raw, fmt.Append(nil, "chunk ", i), nil)
	}
	var changes []Change
	for n := range 2000 {
		rec := bigInode(n)
		if n%50 != 0 {
			rec = smallInode(n)
		}
		rec.Content = link.Link{}
		chunks := int64(n%400 + 1)
		f, err := WriteFile(ctx, s, File{}, chunks*ChunkSize, []Run{{From: 0, To: chunks}}, leaf)
		if err != nil {
			t.Fatal(err)
		}
		rec.Size, rec.Content = f.Size, f.Root
		changes = append(changes, Change{fmt.Sprint(n), &rec})
	}
	root, err := EditDir(ctx, s, testNames, link.Link{}, changes)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[link.Link]bool{}
	for todo := []link.Link{root}; len(todo) > 0; {
		l := todo[0]
		todo = todo[1:]
		if seen[l] {
			continue
		}
		seen[l] = true
		plain, err := s.Get(ctx, l)
		if err != nil {
			t.Fatal(err)
		}
		refs, err := Refs(l.Codec, plain)
		if err != nil {
			t.Fatal(err)
		}
		todo = append(todo, refs...)
	}
	if len(seen) != len(s.blocks) {
		t.Fatalf("Refs reaches %d of %d blocks", len(seen), len(s.blocks))
	}
}

func TestRefsOnceInOrder(t *testing.T) {
	var children []sub
	var want []link.Link
	for i := range 100 {
		l := rawLink(i % 40)
		children = append(children, sub{link: l, n: 1, size: 5, tsize: 5})
		if i < 40 {
			want = append(want, l)
		}
	}
	node, _ := fileNode(children)
	if got, err := Refs(link.DagPB, node.encode()); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%d refs: %v", len(got), err)
	}
}

func TestRefsRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		codec uint64
		plain []byte
	}{
		"another codec":             {0x71, nil},
		"another record":            {link.CBOR, []byte{0x80}},
		"no node":                   {link.DagPB, []byte("no node")},
		"node without data":         {link.DagPB, nil},
		"node with a public link":   {link.DagPB, (&pbNode{links: []pbLink{{cid: rawLink(1).Hash.Address().Bytes()}}}).encode()},
		"node with a broken record": {link.DagPB, (&pbNode{links: []pbLink{{cid: recordCID([]byte("x"))}}}).encode()},
	} {
		if refs, err := Refs(c.codec, c.plain); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v %v", name, refs, err)
		}
	}
	if refs, err := Refs(link.Raw, []byte("anything")); err != nil || refs != nil {
		t.Errorf("a chunk has refs: %v %v", refs, err)
	}
}
