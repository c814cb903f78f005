package link_test

import (
	"testing"

	"skep/chunker/link"
	"skep/test/vectors"
)

// golden is a link whose bytes can be told apart.
func golden(codec uint64) link.Link {
	l := link.Link{Codec: codec}
	for i := range l.Hash {
		l.Hash[i], l.Key[i] = byte(i), 0xff-byte(i)
	}
	return l
}

func TestVectors(t *testing.T) {
	var short, long []byte
	for _, codec := range []uint64{link.Raw, link.DagPB, link.CBOR} {
		short = golden(codec).Append(short)
		long = append(long, golden(codec).CID().Bytes()...)
	}
	short = link.Link{}.Append(short)
	vectors.Check(t, "append", "Append of a raw, a dag-pb, a CBOR and the zero link: 65 bytes each", short)
	vectors.Check(t, "cid", "CID of the raw, the dag-pb and the CBOR link: 71 bytes each", long)
	vectors.Check(t, "address", "Address of their hash, 00…1f", golden(link.Raw).Hash.Address().Bytes())
}
