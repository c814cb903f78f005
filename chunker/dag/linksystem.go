package dag

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"
	"unique"

	"github.com/ipfs/go-cid"
	dagpb "github.com/ipld/go-codec-dagpb"
	"github.com/ipld/go-ipld-prime"
	"github.com/ipld/go-ipld-prime/codec"
	"github.com/ipld/go-ipld-prime/datamodel"
	"github.com/ipld/go-ipld-prime/fluent/qp"
	cidlink "github.com/ipld/go-ipld-prime/linking/cid"
	"github.com/zeebo/blake3"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// System is an IPLD link system over sealed blocks. With it the readers of
// go-unixfsnode read what this package wrote, and its builders write what this
// package reads.
//
// Nodes that it loads hold their links in a form that prints as an address, so
// that no error or log of the libraries can show a key. An entry's link may be an
// inode record; it loads, like any block that is no node, as bytes.
//
// The builders insist on naming each block by 32 bytes before it is stored, while
// the link of a sealed block is known only afterwards. What Store and the builders
// return is therefore a placeholder, valid for this System, which Resolve turns
// into the link. The map from placeholders to links lives as long as the System:
// use one for each build.
//
// A System is safe for concurrent use as far as its Getter and Putter are.
type System struct {
	ipld.LinkSystem

	ctx    context.Context // for the builders, which pass none
	get    Getter
	put    Putter
	secret secret.Key // placeholders are hashes under this key

	mu     sync.Mutex // guards sealed
	sealed map[cid.Cid]link.Link
}

// Format hides the secret and the links from every formatting verb.
func (s *System) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "dag.System(…)") }

// LinkSystem returns a System that reads from g and writes to p; either may be nil
// if it is not used. Loads use the context of their caller, builds use ctx.
func LinkSystem(ctx context.Context, g Getter, p Putter) *System {
	s := &System{ctx: ctx, get: g, put: p, secret: secret.New(), sealed: make(map[cid.Cid]link.Link)}
	s.LinkSystem = ipld.LinkSystem{
		EncoderChooser:     s.chooseEncoder,
		DecoderChooser:     s.chooseDecoder,
		HasherChooser:      s.chooseHasher,
		StorageReadOpener:  s.openRead,
		StorageWriteOpener: s.openWrite,
		TrustedStorage:     true, // a Getter has verified what it returns
	}
	return s
}

// IPLD returns l as a link that a System loads and that the builders take for an
// entry. It prints as the address of the block.
func IPLD(l link.Link) ipld.Link { return hide(l.CID()) }

// Resolve returns the sealed link behind a link of this System: one that Store or a
// builder returned, or one found in a node.
func (s *System) Resolve(l ipld.Link) (link.Link, error) {
	c, err := s.resolve(l)
	if err != nil {
		return link.Link{}, err
	}
	return link.FromCID(c)
}

var errNotOurs = errors.New("link is not of this link system")

// resolve returns the CID that l stands for: a sealed link or an identity CID. It
// takes hidden links and placeholders alone: a bare CID with a key in it would be
// printed by the libraries.
func (s *System) resolve(l ipld.Link) (cid.Cid, error) {
	switch l := l.(type) {
	case hiddenLink:
		return l.cid(), nil
	case cidlink.Link:
		s.mu.Lock()
		defer s.mu.Unlock()
		if sealed, ok := s.sealed[l.Cid]; ok {
			return sealed.CID(), nil
		}
	}
	return cid.Undef, errNotOurs
}

// hiddenLink is a link of the sealed DAG that does not show its key, not even to a
// formatter that looks into structs: it holds a pointer to a string, which none of
// them follows. It is comparable.
type hiddenLink struct{ binary unique.Handle[string] }

func hide(c cid.Cid) hiddenLink { return hiddenLink{unique.Make(c.KeyString())} }

// cid is the CID that is hidden.
func (h hiddenLink) cid() cid.Cid {
	c, err := cid.Cast([]byte(h.Binary()))
	if err != nil {
		panic("BUG: dag: a hidden link is no CID") // hide made it from one
	}
	return c
}

func (h hiddenLink) Prototype() datamodel.LinkPrototype { return hiddenPrototype{h} }

func (h hiddenLink) Binary() string { return h.binary.Value() }

func (h hiddenLink) String() string {
	if l, err := link.FromCID(h.cid()); err == nil {
		return l.String()
	}
	return "inode record"
}

func (h hiddenLink) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, h.String()) }

// hiddenPrototype belongs to one link. The libraries use it to compare what they
// loaded with the link; a Getter has done so, and knows how.
type hiddenPrototype struct{ link hiddenLink }

func (p hiddenPrototype) BuildLink([]byte) datamodel.Link { return p.link }

// chooseHasher makes placeholders: hashes under a random key, so that they tell
// nothing about the content.
func (s *System) chooseHasher(datamodel.LinkPrototype) (hash.Hash, error) {
	return blake3.NewKeyed(s.secret[:])
}

func (s *System) chooseEncoder(p datamodel.LinkPrototype) (codec.Encoder, error) {
	switch codecOf(p) {
	case link.Raw:
		return encodeRaw, nil
	case link.DagPB:
		return s.encodeNode, nil
	}
	return nil, fmt.Errorf("no encoder for the codec %#x", codecOf(p))
}

func (s *System) chooseDecoder(l datamodel.Link) (codec.Decoder, error) {
	switch c := codecOf(l.Prototype()); c {
	case link.Raw, link.CBOR:
		return decodeRaw, nil
	case link.DagPB:
		return decodeNode, nil
	default:
		return nil, fmt.Errorf("no decoder for the codec %#x", c)
	}
}

// codecOf is the codec of a prototype, or 0.
func codecOf(p datamodel.LinkPrototype) uint64 {
	switch p := p.(type) {
	case hiddenPrototype:
		return p.link.cid().Type()
	case cidlink.LinkPrototype:
		return p.Codec
	}
	return 0
}

func encodeRaw(n datamodel.Node, w io.Writer) error {
	b, err := n.AsBytes()
	if err != nil {
		return err
	}
	_, err = w.Write(b)
	return err
}

func decodeRaw(na datamodel.NodeAssembler, r io.Reader) error {
	b, err := readAll(r)
	if err != nil {
		return err
	}
	return na.AssignBytes(b)
}

func readAll(r io.Reader) ([]byte, error) {
	if b, ok := r.(*bytes.Buffer); ok {
		return b.Bytes(), nil
	}
	return io.ReadAll(r)
}

// encodeNode encodes a DAG-PB node with the links that its links stand for.
func (s *System) encodeNode(n datamodel.Node, w io.Writer) error {
	b := dagpb.Type.PBNode.NewBuilder()
	if err := b.AssignNode(n); err != nil {
		return err
	}
	pb := b.Build().(dagpb.PBNode)
	if !pb.FieldData().Exists() {
		return errors.New("node is not UnixFS: it has no data")
	}
	out := pbNode{data: pb.FieldData().Must().Bytes()}
	for it := pb.FieldLinks().Iterator(); !it.Done(); {
		_, l := it.Next()
		c, err := s.resolve(l.FieldHash().Link())
		if err != nil {
			return err
		}
		if !l.FieldName().Exists() || !l.FieldTsize().Exists() || l.FieldTsize().Must().Int() < 0 {
			return errors.New("node is not UnixFS: it has a link without name or size")
		}
		out.links = append(out.links, pbLink{c.Bytes(), l.FieldName().Must().String(), uint64(l.FieldTsize().Must().Int())})
	}
	slices.SortStableFunc(out.links, func(a, b pbLink) int { return cmp.Compare(a.name, b.name) })
	_, err := w.Write(out.encode())
	return err
}

// decodeNode decodes a DAG-PB node as others do, and hides its links. What our own
// decoder would refuse is refused.
func decodeNode(na datamodel.NodeAssembler, r io.Reader) error {
	plain, err := readAll(r)
	if err != nil {
		return err
	}
	if _, err := Refs(link.DagPB, plain); err != nil {
		return err
	}
	nb := dagpb.Type.PBNode.NewBuilder()
	if err := dagpb.DecodeBytes(nb, plain); err != nil {
		return fmt.Errorf("decode node: %w", err)
	}
	shown := nb.Build().(dagpb.PBNode)
	links := shown.FieldLinks()
	node, err := qp.BuildMap(dagpb.Type.PBNode, 2, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Links", qp.List(links.Length(), func(la datamodel.ListAssembler) {
			for it := links.Iterator(); !it.Done(); {
				_, l := it.Next()
				qp.ListEntry(la, assembleLink(l))
			}
		}))
		qp.MapEntry(ma, "Data", qp.Bytes(shown.FieldData().Must().Bytes()))
	})
	if err != nil {
		return fmt.Errorf("assemble node: %w", err)
	}
	return na.AssignNode(node)
}

// assembleLink makes a link that hides its key from one that does not.
func assembleLink(l dagpb.PBLink) qp.Assemble {
	return qp.Map(3, func(ma datamodel.MapAssembler) {
		qp.MapEntry(ma, "Hash", qp.Link(hide(l.FieldHash().Link().(cidlink.Link).Cid)))
		qp.MapEntry(ma, "Name", qp.String(l.FieldName().Must().String()))
		qp.MapEntry(ma, "Tsize", qp.Int(l.FieldTsize().Must().Int()))
	})
}

// openRead yields the plaintext behind a link.
func (s *System) openRead(lc ipld.LinkContext, l datamodel.Link) (io.Reader, error) {
	c, err := s.resolve(l)
	if err != nil {
		return nil, err
	}
	if rec, ok := inlineRecord(c.Bytes()); ok {
		return bytes.NewBuffer(rec), nil
	}
	sealed, err := link.FromCID(c)
	if err != nil {
		return nil, err
	}
	plain, err := s.get.Get(lc.Ctx, sealed)
	if err != nil {
		return nil, err
	}
	return bytes.NewBuffer(plain), nil
}

// openWrite collects what a builder stores, and puts it when it is whole.
func (s *System) openWrite(ipld.LinkContext) (io.Writer, ipld.BlockWriteCommitter, error) {
	var buf bytes.Buffer
	return &buf, func(l ipld.Link) error { return s.commit(l, buf.Bytes()) }, nil
}

func (s *System) commit(l ipld.Link, plain []byte) error {
	c := l.(cidlink.Link).Cid // of the prototype that chooseEncoder accepted
	refs, err := Refs(c.Type(), plain)
	if err != nil {
		return err
	}
	sealed, err := s.put.Put(s.ctx, c.Type(), plain, refs)
	if err != nil {
		return fmt.Errorf("put block: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed[c] = sealed
	return nil
}
