package dag

import (
	"slices"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"skep/chunker/link"
)

// Refs lists the links that a block of this package holds: each once, in the
// order in which they first appear, those inside of inode records included. These
// are the refs that Put was given for the block. A chunk has none. CBOR blocks
// other than inode records are not of this package: they give ErrCorrupt.
func Refs(codec uint64, plain []byte) ([]link.Link, error) {
	switch codec {
	case link.Raw:
		return nil, nil
	case link.CBOR:
		return recordRefs(plain)
	case link.DagPB:
		return nodeRefs(plain)
	}
	return nil, corrupt("block has the codec %#x", codec)
}

func recordRefs(plain []byte) ([]link.Link, error) {
	n, err := DecodeInode(plain)
	if err != nil {
		return nil, err
	}
	var refs refSet
	refs.add(n.Content)
	return refs.links, nil
}

func nodeRefs(plain []byte) ([]link.Link, error) {
	node, err := decodePB(plain)
	if err != nil {
		return nil, err
	}
	var refs refSet
	for i := range node.links {
		l, err := linkedBlock(node.links[i].cid)
		if err != nil {
			return nil, err
		}
		refs.add(l)
	}
	return refs.links, nil
}

// linkedBlock is the block that a CID leads to: the one it names or, if it is an
// inode record, the record's content.
func linkedBlock(b []byte) (link.Link, error) {
	if rec, ok := inlineRecord(b); ok {
		n, err := DecodeInode(rec)
		return n.Content, err
	}
	return sealedCID(b)
}

// refSet collects links, each once, in order. The zero link is none.
type refSet struct {
	links []link.Link
	seen  map[link.Link]struct{} // once there are many
}

func (r *refSet) add(l link.Link) {
	if l.IsZero() || r.has(l) {
		return
	}
	r.links = append(r.links, l)
	if r.seen != nil {
		r.seen[l] = struct{}{}
	}
}

func (r *refSet) has(l link.Link) bool {
	const few = 8
	if len(r.links) < few {
		return slices.Contains(r.links, l)
	}
	if r.seen == nil {
		r.seen = make(map[link.Link]struct{}, 4*few)
		for _, have := range r.links {
			r.seen[have] = struct{}{}
		}
	}
	_, ok := r.seen[l]
	return ok
}

// recordCID is the identity CID of a record, in binary form.
func recordCID(rec []byte) []byte {
	mh, err := multihash.Encode(rec, multihash.IDENTITY)
	if err != nil {
		panic("BUG: dag: " + err.Error())
	}
	return cid.NewCidV1(link.CBOR, mh).Bytes()
}

// inlineRecord returns the record in an identity CID; ok is false for any other
// CID.
func inlineRecord(b []byte) (rec []byte, ok bool) {
	p := parser{b}
	for _, want := range [...]uint64{1, link.CBOR, multihash.IDENTITY} {
		if v, ok := p.number(); !ok || v != want {
			return nil, false
		}
	}
	n, ok := p.number()
	if !ok || n != uint64(len(p.b)) {
		return nil, false
	}
	return p.b, true
}
