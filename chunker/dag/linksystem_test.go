package dag

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ipfs/go-cid"
	"github.com/ipfs/go-unixfsnode"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/ipld/go-ipld-prime/node/basicnode"
	"github.com/ipld/go-ipld-prime/printer"
	"github.com/multiformats/go-multihash"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// stockProto is the prototype of the links that the stock builders ask for.
func stockProto(codec uint64) cidlink.LinkPrototype {
	return cidlink.LinkPrototype{Prefix: cid.Prefix{Version: 1, Codec: codec, MhType: multihash.SHA2_256, MhLength: 32}}
}

// TestStore stores a chunk and a node above it as the stock builders do.
func TestStore(t *testing.T) {
	ctx, s := context.Background(), newStore()
	sys := LinkSystem(ctx, s, s)
	chunk := bytes.Repeat([]byte("chunk"), 100)
	leaf, err := sys.Store(ipld.LinkContext{}, stockProto(link.Raw), basicnode.NewBytes(chunk))
	if err != nil {
		t.Fatal(err)
	}
	real := resolve(t, sys, leaf)
	if got, err := s.Get(ctx, real); err != nil || !bytes.Equal(got, chunk) {
		t.Fatalf("stored as something else: %v", err)
	}
	nd, err := sys.Load(ipld.LinkContext{Ctx: ctx}, leaf, basicnode.Prototype.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := nd.AsBytes(); !bytes.Equal(got, chunk) {
		t.Fatal("loaded as something else")
	}
	above, err := sys.Store(ipld.LinkContext{}, stockProto(link.DagPB), pbNodeTo(t, leaf))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := s.Get(ctx, resolve(t, sys, above))
	if err != nil {
		t.Fatal(err)
	}
	if refs, err := Refs(link.DagPB, plain); err != nil || len(refs) != 1 || refs[0] != real {
		t.Fatalf("the node links to %v: %v", refs, err)
	}
	other := LinkSystem(ctx, s, s)
	if _, err := other.Resolve(leaf); err == nil {
		t.Fatal("another system knows the placeholder")
	}
	if again, _ := other.Store(ipld.LinkContext{}, stockProto(link.Raw), basicnode.NewBytes(chunk)); again == leaf {
		t.Fatal("placeholders are the same in all systems")
	}
}

// TestNoKeyShows prints links and nodes in every way, and lets loads fail.
func TestNoKeyShows(t *testing.T) {
	ctx, s := context.Background(), newStore()
	secretKey := secret.Key(bytes.Repeat([]byte("K3y!"), 8))
	content := link.Link{Codec: link.Raw, Key: secretKey}
	content.Hash[0] = fakeLink
	rec := Inode{ID: 1, Mode: ModeRegular, Size: 1, Content: content}
	big := Inode{ID: 2, Mode: ModeRegular, Size: 1, Content: content, Xattrs: map[string][]byte{"a": make([]byte, 2000)}}
	root, err := EditDir(ctx, s, testNames, link.Link{}, []Change{{"small", &rec}, {"big", &big}})
	if err != nil {
		t.Fatal(err)
	}
	sys := LinkSystem(ctx, s, nil)
	nd, err := sys.Load(ipld.LinkContext{Ctx: ctx}, IPLD(root), dagpb.Type.PBNode)
	if err != nil {
		t.Fatal(err)
	}
	shown := []any{root, IPLD(root), IPLD(content), nd, rec, File{content, 1}, printer.Sprint(nd)}
	links := nd.(dagpb.PBNode).FieldLinks()
	for i := int64(0); i < links.Length(); i++ {
		l := links.Lookup(i).FieldHash()
		shown = append(shown, l, l.Link(), links.Lookup(i))
	}
	absent := link.Link{Codec: link.DagPB, Key: secretKey}
	for _, l := range []link.Link{absent, content, {Codec: link.CBOR, Key: secretKey}} {
		_, err := sys.Load(ipld.LinkContext{Ctx: ctx}, IPLD(l), basicnode.Prototype.Any)
		if err == nil {
			t.Fatal("an absent block loads")
		}
		_, _, err2 := sys.LoadPlusRaw(ipld.LinkContext{Ctx: ctx}, IPLD(l), basicnode.Prototype.Any)
		_, err3 := sys.Resolve(cidlink.Link{Cid: l.Hash.Address()})
		shown = append(shown, err, err2, err3)
	}
	if raw, err := sys.LoadRaw(ipld.LinkContext{Ctx: ctx}, IPLD(root)); err != nil || len(raw) == 0 {
		t.Fatalf("a block does not load raw: %v", err)
	}
	bare := cidlink.Link{Cid: root.CID()} // would print itself
	if _, err := sys.LoadRaw(ipld.LinkContext{Ctx: ctx}, bare); err == nil {
		t.Fatal("a bare link loads")
	} else {
		shown = append(shown, err)
	}
	for _, key := range []secret.Key{secretKey, root.Key} {
		for _, v := range shown {
			for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
				noKey(t, key, fmt.Sprintf(verb, v))
			}
		}
	}
}

// noKey fails if any 8 bytes of a key occur in text, in any of the usual forms.
func noKey(t *testing.T, key secret.Key, text string) {
	t.Helper()
	part := key[8:20]
	for _, form := range []string{
		string(part), hex.EncodeToString(part), strings.ToUpper(hex.EncodeToString(part)),
		base64.RawStdEncoding.EncodeToString(part), strings.Trim(fmt.Sprint(part), "[]"), strings.Trim(fmt.Sprintf("%#v", part), "[]byte{}"),
	} {
		if strings.Contains(text, form) {
			t.Fatalf("a key shows in %q", text)
		}
	}
	l := link.Link{Codec: link.Raw, Key: key}.CID().String()
	if strings.Contains(text, l[len(l)-20:]) {
		t.Fatalf("a key shows in %q", text)
	}
}

func TestLinkSystemRefuses(t *testing.T) {
	ctx, s := context.Background(), newStore()
	sys := LinkSystem(ctx, s, s)
	if _, err := sys.Resolve(nil); err == nil {
		t.Error("nil resolves")
	}
	if _, err := sys.Resolve(cidlink.Link{}); err == nil {
		t.Error("the undefined CID resolves")
	}
	if _, err := sys.Store(ipld.LinkContext{}, stockProto(0x71), basicnode.NewBytes(nil)); err == nil {
		t.Error("a foreign codec is stored")
	}
	public := cidlink.Link{Cid: rawLink(1).Hash.Address()}
	if _, err := sys.Load(ipld.LinkContext{Ctx: ctx}, public, basicnode.Prototype.Any); !errors.Is(err, errNotOurs) {
		t.Errorf("a public link loads: %v", err)
	}
	// A node that links to a public block must not be made.
	lnk, err := sys.Store(ipld.LinkContext{}, stockProto(link.DagPB), pbNodeTo(t, public))
	if !errors.Is(err, errNotOurs) {
		t.Errorf("a node with a public link is stored as %v: %v", lnk, err)
	}
}

// TestInlineRecordLoads loads an inode record by its entry's link.
func TestInlineRecordLoads(t *testing.T) {
	ctx, s := context.Background(), newStore()
	rec := smallInode(3)
	root, err := EditDir(ctx, s, testNames, link.Link{}, []Change{{"x", &rec}})
	if err != nil {
		t.Fatal(err)
	}
	sys := LinkSystem(ctx, s, nil)
	lc := ipld.LinkContext{Ctx: ctx}
	nd, err := sys.Load(lc, IPLD(root), dagpb.Type.PBNode)
	if err != nil {
		t.Fatal(err)
	}
	d, err := unixfsnode.Reify(lc, nd, &sys.LinkSystem)
	if err != nil {
		t.Fatal(err)
	}
	e, err := d.LookupByString(newNamer(testNames).stored("x"))
	if err != nil {
		t.Fatal(err)
	}
	l, err := e.AsLink()
	if err != nil {
		t.Fatal(err)
	}
	b, err := sys.Load(lc, l, basicnode.Prototype.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	plain, _ := b.AsBytes()
	if got, err := DecodeInode(plain); err != nil || got.ID != rec.ID {
		t.Fatalf("%v %v", got, err)
	}
}
