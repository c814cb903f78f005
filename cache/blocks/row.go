package blocks

import (
	"encoding/binary"
	"errors"

	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/chunker/link"
)

// The tables, by the first byte of their keys. They lie beside those of the
// tree in the same store.
const (
	tableBlock   = 'b' // hash → row
	tableTag     = 'k' // tag → hash
	tableOrphan  = 'o' // hash: stored, and nothing refers to it yet
	tableDropped = 'z' // hash: nothing refers to it any more; its children are still counted
	tableNew     = 'j' // hash: in no segment of the index yet
	tablePack    = 'p' // group, number → pack row
	tableGroup   = 'g' // group → record
)

var errRow = errors.New("malformed block row")

// Block is what is known of a stored block.
type Block struct {
	Link   link.Link
	Tag    block.Tag
	Refs   uint64 // references from stored blocks and from the newest commit
	Places []blockindex.Place
	// Expanded says that its children's references are counted.
	Expanded bool
}

func (b *Block) encode() []byte {
	out := make([]byte, 0, 160)
	out = b.Link.Append(out)
	out = append(out, b.Tag[:]...)
	flags := byte(0)
	if b.Expanded {
		flags = 1
	}
	out = append(out, flags)
	out = binary.AppendUvarint(out, b.Refs)
	for _, p := range b.Places {
		out = append(out, p.Group[:]...)
		out = binary.AppendUvarint(out, uint64(p.Number))
		out = binary.AppendUvarint(out, uint64(p.Offset))
		out = binary.AppendUvarint(out, uint64(p.Length))
	}
	return out
}

func decodeBlock(b []byte) (Block, error) {
	var out Block
	const fixed = link.EncodedSize + 16 + 1
	if len(b) < fixed {
		return out, errRow
	}
	if err := out.Link.UnmarshalBinary(b[:link.EncodedSize]); err != nil {
		return out, err
	}
	out.Tag = block.Tag(b[link.EncodedSize : link.EncodedSize+16])
	out.Expanded = b[fixed-1]&1 != 0
	b = b[fixed:]
	var ok bool
	if out.Refs, b, ok = uvarint(b); !ok {
		return out, errRow
	}
	for len(b) > 0 {
		if len(b) < 32 {
			return out, errRow
		}
		p := blockindex.Place{Group: group.ID(b[:32])}
		b = b[32:]
		for _, dst := range []func(uint64){
			func(v uint64) { p.Number = uint16(v) },
			func(v uint64) { p.Offset = uint32(v) },
			func(v uint64) { p.Length = uint32(v) },
		} {
			var v uint64
			if v, b, ok = uvarint(b); !ok {
				return out, errRow
			}
			dst(v)
		}
		out.Places = append(out.Places, p)
	}
	return out, nil
}

func uvarint(b []byte) (uint64, []byte, bool) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, false
	}
	return v, b[n:], true
}

// Pack is what is known of a pack.
type Pack struct {
	Group  group.ID
	Number uint16
	Kind   group.Kind
	Blocks uint32 // blocks in it
	Total  uint64 // their bytes
	Live   uint64 // bytes of those that something refers to
	// Acked are the slots whose holders said that they have their shard.
	Acked group.SlotSet
	// Manifest is the signed manifest; nil if it is not known here yet.
	Manifest []byte
}

func (p *Pack) encode() []byte {
	out := append(make([]byte, 0, 64+len(p.Manifest)), byte(p.Kind))
	out = binary.AppendUvarint(out, uint64(p.Blocks))
	out = binary.AppendUvarint(out, p.Total)
	out = binary.AppendUvarint(out, p.Live)
	out = append(out, p.Acked[:]...)
	return append(out, p.Manifest...)
}

func decodePack(key, b []byte) (Pack, error) {
	if len(key) != 1+32+2 || len(b) < 1 {
		return Pack{}, errRow
	}
	p := Pack{Group: group.ID(key[1:33]), Number: binary.BigEndian.Uint16(key[33:]), Kind: group.Kind(b[0])}
	b = b[1:]
	var n uint64
	var ok bool
	if n, b, ok = uvarint(b); !ok {
		return p, errRow
	}
	p.Blocks = uint32(n)
	if p.Total, b, ok = uvarint(b); !ok {
		return p, errRow
	}
	if p.Live, b, ok = uvarint(b); !ok || len(b) < len(p.Acked) {
		return p, errRow
	}
	p.Acked = group.SlotSet(b[:len(p.Acked)])
	if b = b[len(p.Acked):]; len(b) > 0 {
		p.Manifest = append([]byte(nil), b...)
	}
	return p, nil
}

func hashKey(table byte, h link.Hash) []byte { return append([]byte{table}, h[:]...) }
func tagKey(t block.Tag) []byte              { return append([]byte{tableTag}, t[:]...) }
func groupKey(id group.ID) []byte            { return append([]byte{tableGroup}, id[:]...) }
func packKey(id group.ID, n uint16) []byte {
	return binary.BigEndian.AppendUint16(append([]byte{tablePack}, id[:]...), n)
}
