package link

import (
	"errors"
	"fmt"

	"github.com/ipfs/go-cid"
	"github.com/multiformats/go-multihash"

	"skep/chunker/secret"
)

// Codecs of blocks, by the multicodec table.
const (
	Raw   uint64 = cid.Raw         // a chunk of content
	DagPB uint64 = cid.DagProtobuf // a UnixFS node
	CBOR  uint64 = 0x51            // a record of ours: commit, segment, group table, inode record
)

// MultihashCode is the private-use multihash code of sealed links.
const MultihashCode = 0x300001

const blake3Code = multihash.BLAKE3 // 0x1e, BLAKE3-256 of the ciphertext

// ErrNotLink says that a CID is not a sealed link.
var ErrNotLink = errors.New("not a sealed link")

// Hash is the BLAKE3-256 of a block's ciphertext.
type Hash [32]byte

// Address is the hash as a public CID: CIDv1, raw, BLAKE3-256.
func (h Hash) Address() cid.Cid {
	mh, err := multihash.Encode(h[:], blake3Code)
	if err != nil {
		panic("BUG: link: " + err.Error())
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// String is the address.
func (h Hash) String() string { return h.Address().String() }

// Link is the capability to find and read one block. The zero Link names
// nothing. Links are comparable.
type Link struct {
	Hash  Hash
	Key   secret.Key
	Codec uint64
}

// IsZero reports whether l names nothing.
func (l Link) IsZero() bool { return l == Link{} }

// String is the block's address, without the key.
func (l Link) String() string {
	if l.IsZero() {
		return "no link"
	}
	return l.Hash.String()
}

// Format prints the address for every verb, so that a key never leaks.
func (l Link) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(l.String())) }

// MarshalText is the address, so that no key reaches JSON either.
func (l Link) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// CID is the form of l inside the sealed DAG. It holds the key: it must not be
// printed, and is never shown to a peer.
func (l Link) CID() cid.Cid {
	var digest [64]byte
	copy(digest[:32], l.Hash[:])
	copy(digest[32:], l.Key[:])
	mh, err := multihash.Encode(digest[:], MultihashCode)
	if err != nil {
		panic("BUG: link: " + err.Error())
	}
	return cid.NewCidV1(l.Codec, mh)
}

// FromCID is the inverse of Link.CID.
func FromCID(c cid.Cid) (Link, error) {
	if !c.Defined() || c.Version() != 1 {
		return Link{}, ErrNotLink
	}
	switch c.Type() {
	case Raw, DagPB, CBOR:
	default:
		return Link{}, ErrNotLink
	}
	d, err := multihash.Decode(c.Hash())
	if err != nil || d.Code != MultihashCode || len(d.Digest) != 64 {
		return Link{}, ErrNotLink
	}
	l := Link{Codec: c.Type()}
	copy(l.Hash[:], d.Digest[:32])
	copy(l.Key[:], d.Digest[32:])
	return l, nil
}

// EncodedSize is the length of Append's encoding.
const EncodedSize = 1 + 32 + 32

// Append writes l in 65 bytes: codec, hash, key.
func (l Link) Append(b []byte) []byte {
	b = append(b, codecByte(l.Codec))
	b = append(b, l.Hash[:]...)
	return append(b, l.Key[:]...)
}

// MarshalBinary implements encoding.BinaryMarshaler by Append.
func (l Link) MarshalBinary() ([]byte, error) { return l.Append(nil), nil }

// UnmarshalBinary reads what Append wrote.
func (l *Link) UnmarshalBinary(b []byte) error {
	if len(b) != EncodedSize {
		return ErrNotLink
	}
	c, ok := byteCodec(b[0])
	if !ok || c == 0 && [EncodedSize]byte(b) != [EncodedSize]byte{} {
		return ErrNotLink
	}
	l.Codec = c
	copy(l.Hash[:], b[1:33])
	copy(l.Key[:], b[33:])
	return nil
}

// codecByte is the short form of a codec; 0 stands for the zero link.
func codecByte(c uint64) byte {
	switch c {
	case 0:
		return 0
	case Raw:
		return 1
	case DagPB:
		return 2
	case CBOR:
		return 3
	}
	panic(fmt.Sprintf("BUG: link: codec %#x has no short form", c))
}

func byteCodec(b byte) (uint64, bool) {
	switch b {
	case 0:
		return 0, true
	case 1:
		return Raw, true
	case 2:
		return DagPB, true
	case 3:
		return CBOR, true
	}
	return 0, false
}
