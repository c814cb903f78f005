package blockindex

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"skep/chunker/block"
	"skep/chunker/group"
	"skep/chunker/link"
)

// Place is where a block lies.
type Place struct {
	Group          group.ID
	Number         uint16 // of the pack in the group
	Offset, Length uint32
}

// Entry is one block at one place.
type Entry struct {
	Link  link.Link
	Tag   block.Tag
	Place Place
}

// Compare orders entries by hash, then by place.
func Compare(a, b Entry) int {
	if c := bytes.Compare(a.Link.Hash[:], b.Link.Hash[:]); c != 0 {
		return c
	}
	if c := bytes.Compare(a.Place.Group[:], b.Place.Group[:]); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(a.Place.Number, b.Place.Number), cmp.Compare(a.Place.Offset, b.Place.Offset))
}

const (
	version    = 1
	headerSize = 8 // version, groups, entries
	entrySize  = link.EncodedSize + 16 + 2 + 2 + 4 + 4

	// pieceEntries is how many entries a piece has at most; with a group for
	// every entry it still fits a block.
	pieceEntries = 4096
)

// ErrCorrupt says that bytes are not a piece of a segment.
var ErrCorrupt = errors.New("index segment is corrupt")

// Encode cuts sorted entries into pieces.
func Encode(sorted []Entry) [][]byte {
	var out [][]byte
	for part := range slices.Chunk(sorted, pieceEntries) {
		out = append(out, encodePiece(part))
	}
	return out
}

func encodePiece(entries []Entry) []byte {
	groups := map[group.ID]uint16{}
	var order []group.ID
	for _, e := range entries {
		if _, ok := groups[e.Place.Group]; !ok {
			groups[e.Place.Group] = uint16(len(order))
			order = append(order, e.Place.Group)
		}
	}
	b := make([]byte, 0, headerSize+len(order)*32+len(entries)*entrySize)
	b = append(b, version, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(order)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(entries)))
	for _, g := range order {
		b = append(b, g[:]...)
	}
	for _, e := range entries {
		b = e.Link.Append(b)
		b = append(b, e.Tag[:]...)
		b = binary.LittleEndian.AppendUint16(b, groups[e.Place.Group])
		b = binary.LittleEndian.AppendUint16(b, e.Place.Number)
		b = binary.LittleEndian.AppendUint32(b, e.Place.Offset)
		b = binary.LittleEndian.AppendUint32(b, e.Place.Length)
	}
	return b
}

// Decode reads one piece. The entries are sorted.
func Decode(b []byte) ([]Entry, error) {
	if len(b) < headerSize || b[0] != version || b[1] != 0 {
		return nil, fmt.Errorf("%w: header", ErrCorrupt)
	}
	ng, n := int(binary.LittleEndian.Uint16(b[2:])), int(binary.LittleEndian.Uint32(b[4:]))
	if n > pieceEntries || ng > n || len(b) != headerSize+ng*32+n*entrySize {
		return nil, fmt.Errorf("%w: %d groups and %d entries in %d bytes", ErrCorrupt, ng, n, len(b))
	}
	groups, rest := b[headerSize:headerSize+ng*32], b[headerSize+ng*32:]
	out := make([]Entry, n)
	for i := range out {
		p := rest[i*entrySize : (i+1)*entrySize]
		e := &out[i]
		if err := e.Link.UnmarshalBinary(p[:link.EncodedSize]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		p = p[link.EncodedSize:]
		e.Tag = block.Tag(p[:16])
		g := int(binary.LittleEndian.Uint16(p[16:]))
		e.Place.Number = binary.LittleEndian.Uint16(p[18:])
		e.Place.Offset, e.Place.Length = binary.LittleEndian.Uint32(p[20:]), binary.LittleEndian.Uint32(p[24:])
		if g >= ng || e.Place.Number >= group.MaxPacks || e.Place.Length > block.MaxSealed {
			return nil, fmt.Errorf("%w: entry %d", ErrCorrupt, i)
		}
		e.Place.Group = group.ID(groups[g*32 : g*32+32])
		if i > 0 && Compare(out[i-1], *e) >= 0 {
			return nil, fmt.Errorf("%w: entries out of order", ErrCorrupt)
		}
	}
	return out, nil
}

// Merge unites sorted lists and leaves out the entries that dead names.
func Merge(lists [][]Entry, dead func(Place) bool) []Entry {
	n := 0
	for _, l := range lists {
		n += len(l)
	}
	all := make([]Entry, 0, n)
	for _, l := range lists {
		for _, e := range l {
			if !dead(e.Place) {
				all = append(all, e)
			}
		}
	}
	slices.SortFunc(all, Compare)
	return slices.CompactFunc(all, func(a, b Entry) bool { return Compare(a, b) == 0 })
}

// MergeFrom says which segments, given the numbers of their entries from the
// oldest to the newest, are to be merged into one: those from the returned
// position on. Each segment ends up at least twice as large as the next, so
// that an entry is merged a logarithmic number of times, and there are at most
// as many segments as the index has binary digits.
func MergeFrom(counts []int) int {
	at, sum := len(counts)-1, 0
	if at < 0 {
		return 0
	}
	sum = counts[at]
	for at > 0 && counts[at-1] < 2*sum {
		at--
		sum += counts[at]
	}
	return at
}
