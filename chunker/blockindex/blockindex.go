package blockindex

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
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
)

// MaxPiece is how many entries a piece has at most; with a group for every entry it
// still fits a block.
const MaxPiece = 4096

// Entries are entries one after the other, read as they are needed. An error is
// the last of them.
type Entries = iter.Seq2[Entry, error]

// ErrCorrupt says that bytes are not a piece of a segment.
var ErrCorrupt = errors.New("index segment is corrupt")

// Cut makes pieces of sorted entries, of up to most each, and calls piece for each
// one, with the hash of its first entry, before it reads on. It returns how many
// entries there were.
func Cut(sorted Entries, most int, piece func(first link.Hash, plain []byte) error) (count uint64, err error) {
	part := make([]Entry, 0, most)
	end := func() error {
		if len(part) == 0 {
			return nil
		}
		err := piece(part[0].Link.Hash, Encode(part))
		part = part[:0]
		return err
	}
	for e, err := range sorted {
		if err != nil {
			return count, err
		}
		count++
		if part = append(part, e); len(part) == most {
			if err := end(); err != nil {
				return count, err
			}
		}
	}
	return count, end()
}

// Encode makes one piece of up to MaxPiece sorted entries.
func Encode(entries []Entry) []byte {
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
	if n > MaxPiece || ng > n || len(b) != headerSize+ng*32+n*entrySize {
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

// Merge unites sorted entries and leaves out those that dead names. Of each source
// it holds one entry.
func Merge(dead func(Place) bool, sources ...Entries) Entries {
	return func(yield func(Entry, error) bool) {
		var m merger
		defer func() { m.stop() }()
		for _, s := range sources {
			if err := m.add(s); err != nil {
				yield(Entry{}, err)
				return
			}
		}
		var last Entry
		for first := true; len(m.heads) > 0; {
			e, err := m.next()
			if err != nil {
				yield(Entry{}, err)
				return
			}
			if dead(e.Place) || !first && Compare(e, last) == 0 {
				continue
			}
			first, last = false, e
			if !yield(e, nil) {
				return
			}
		}
	}
}

// merger walks several sources as one.
type merger struct{ heads []head }

// head is a source, and the entry that it stands on.
type head struct {
	Entry
	next func() (Entry, error, bool)
	stop func()
}

// add takes in a source, if it has anything.
func (m *merger) add(s Entries) error {
	next, stop := iter.Pull2(s)
	m.heads = append(m.heads, head{next: next, stop: stop})
	return m.forward(len(m.heads) - 1)
}

// forward moves a source to its next entry; at its end it goes.
func (m *merger) forward(i int) error {
	h := &m.heads[i]
	e, err, ok := h.next()
	if h.Entry = e; ok {
		return err
	}
	h.stop()
	m.heads = slices.Delete(m.heads, i, i+1)
	return nil
}

// next is the least of the entries that the sources stand on.
func (m *merger) next() (Entry, error) {
	least := 0
	for i := range m.heads {
		if Compare(m.heads[i].Entry, m.heads[least].Entry) < 0 {
			least = i
		}
	}
	e := m.heads[least].Entry
	return e, m.forward(least)
}

func (m *merger) stop() {
	for _, h := range m.heads {
		h.stop()
	}
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
