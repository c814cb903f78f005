package blockindex

import (
	"reflect"
	"slices"
	"testing"

	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/test/vectors"
)

func TestVector(t *testing.T) {
	var all []Entry
	for i := range 5 {
		e := Entry{Tag: block.Tag{byte(i), 0x77}, Place: Place{Number: uint16(i * 50), Offset: uint32(16 + i*70_000), Length: uint32(20 + i*260_000)}}
		e.Link = link.Link{Codec: []uint64{link.Raw, link.DagPB, link.CBOR}[i%3]}
		e.Link.Hash[0], e.Link.Hash[31], e.Link.Key[0] = byte(i/2), 0xee, byte(100+i) // two blocks have two places each
		e.Place.Group = group.ID{0: byte(2 - i%2), 31: 0xdd}
		all = append(all, e)
	}
	slices.SortFunc(all, Compare)
	piece := Encode(all)
	vectors.Check(t, "piece", "a piece of 5 entries of 3 blocks in 2 groups", piece)
	if got, err := Decode(piece); err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("%v, %v", got, err)
	}
}
