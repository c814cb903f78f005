package blocks

import (
	"reflect"
	"testing"

	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/test/vectors"
)

func TestRowVectors(t *testing.T) {
	b := Block{
		Link: link.Link{Codec: link.Raw, Hash: link.Hash{1}, Key: [32]byte{2}}, Tag: block.Tag{3}, Refs: 300, Expanded: true,
		Places: []blockindex.Place{{Group: group.ID{4}, Number: 200, Offset: 70_000, Length: 1 << 20}, {Group: group.ID{5}, Length: 20}},
	}
	vectors.Check(t, "block", "the row of a block in two places", b.encode())
	if got, err := decodeBlock(b.encode()); err != nil || !reflect.DeepEqual(got, b) {
		t.Errorf("%+v, %v", got, err)
	}
	p := Pack{Group: group.ID{6}, Number: 7, Kind: group.Metadata, Blocks: 1000, Total: 1 << 24, Live: 1 << 23, Manifest: []byte("a manifest")}
	p.Acked.Add(0)
	p.Acked.Add(127)
	vectors.Check(t, "pack", "the row of a pack", p.encode())
	if got, err := decodePack(packKey(p.Group, p.Number), p.encode()); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("%+v, %v", got, err)
	}
}
