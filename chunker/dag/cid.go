package dag

import (
	"bytes"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"skep/chunker/link"
)

// Nodes hold CIDs in binary form. Two kinds occur: sealed links, whose form is a
// constant for each codec, then hash and key; and identity CIDs, whose digest is an
// inode record.

// sealedPrefixes are what the sealed links of each codec begin with.
var sealedPrefixes = func() map[uint64][]byte {
	m := make(map[uint64][]byte)
	for _, codec := range [...]uint64{link.Raw, link.DagPB, link.CBOR} {
		b := link.Link{Codec: codec}.CID().Bytes()
		m[codec] = b[:len(b)-sealedDigest]
	}
	return m
}()

// sealedDigest is the length of a sealed link's digest: hash and key.
const sealedDigest = 64

// sealedCID reads the binary form of a sealed link to a block of this package.
func sealedCID(b []byte) (link.Link, error) {
	if len(b) > 1 {
		codec := uint64(b[1]) // ours take one byte
		prefix, known := sealedPrefixes[codec]
		digest, ok := bytes.CutPrefix(b, prefix)
		if known && ok && len(digest) == sealedDigest {
			l := link.Link{Codec: codec}
			copy(l.Hash[:], digest)
			copy(l.Key[:], digest[len(l.Hash):])
			return l, nil
		}
	}
	return link.Link{}, corrupt("a link is neither sealed nor an inode record")
}

// cidOf is the binary form of a sealed link; the inverse of sealedCID.
func cidOf(l link.Link) []byte {
	prefix := sealedPrefixes[l.Codec]
	b := make([]byte, 0, len(prefix)+sealedDigest)
	b = append(b, prefix...)
	b = append(b, l.Hash[:]...)
	return append(b, l.Key[:]...)
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

// linkedBlock is the block that a CID leads to: the one it names or, if it is an
// inode record, the record's content, which may be none.
func linkedBlock(b []byte) (link.Link, error) {
	if rec, ok := inlineRecord(b); ok {
		n, err := DecodeInode(rec)
		return n.Content, err
	}
	return sealedCID(b)
}
