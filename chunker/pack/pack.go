package pack

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"

	"skep/chunker/block"
	"skep/chunker/erasure"
	"skep/chunker/link"
	"skep/chunker/secret"
)

const (
	idSize      = 16
	entrySize   = link.EncodedSize + 16 + 4 + 4
	tagSize     = 16
	trailerSize = 12 + tagSize
	version     = 1

	contextIndex   = "skep pack index v1"
	contextTrailer = "skep pack trailer v1"
	contextPadding = "skep pack padding v1"
)

// Fixed is what a pack takes beside its blocks and their entries.
const Fixed = idSize + tagSize + trailerSize

// PerBlock is what the index takes for each block.
const PerBlock = entrySize

var (
	// ErrCorrupt says that bytes are not a pack of this read secret.
	ErrCorrupt = errors.New("pack is corrupt")
	// ErrFull says that a block does not fit into the pack any more.
	ErrFull = errors.New("pack is full")
)

// Entry says where in a pack a block lies.
type Entry struct {
	Link           link.Link
	Tag            block.Tag
	Offset, Length uint32
}

// Builder gathers the blocks of one pack. It is not safe for concurrent use, but
// for writing to room that is reserved.
type Builder struct {
	buf     []byte
	max     int
	entries []Entry
}

// Format prints how many blocks there are, for every verb, so that no key shows.
func (b Builder) Format(f fmt.State, _ rune) {
	_, _ = fmt.Fprintf(f, "pack of %d blocks", len(b.entries))
}

// NewBuilder begins a pack of at most the given class. buf, if its capacity
// suffices for the class, becomes the pack's memory.
func NewBuilder(largest erasure.Class, buf []byte) *Builder {
	if cap(buf) < largest.Size() {
		buf = make([]byte, 0, largest.Size())
	}
	b := &Builder{buf: buf[:idSize], max: largest.Size()}
	_, _ = rand.Read(b.buf)
	return b
}

// Fits reports whether a block of n ciphertext bytes still fits.
func (b *Builder) Fits(n int) bool { return b.size()+n+entrySize <= b.max }

// size is what the pack takes as it is.
func (b *Builder) size() int {
	return len(b.buf) + len(b.entries)*entrySize + tagSize + trailerSize
}

// Add appends a block and returns its offset.
func (b *Builder) Add(s block.Sealed) (uint32, error) {
	e, room, err := b.Reserve(len(s.Ciphertext))
	if err != nil {
		return 0, err
	}
	copy(room, s.Ciphertext)
	return b.Fill(e, s).Offset, nil
}

// Reserve keeps room for the ciphertext of the next block, of n bytes, and
// returns the number of its entry. Room is written to at any time before Fill.
func (b *Builder) Reserve(n int) (entry int, room []byte, err error) {
	if !b.Fits(n) {
		return 0, nil, ErrFull
	}
	off := len(b.buf)
	b.buf = b.buf[:off+n]
	b.entries = append(b.entries, Entry{Offset: uint32(off), Length: uint32(n)})
	return len(b.entries) - 1, b.buf[off : off+n : off+n], nil
}

// Fill says which block it is whose ciphertext was put into reserved room, and
// returns its entry. It is due for each before the pack is sealed.
func (b *Builder) Fill(entry int, s block.Sealed) Entry {
	e := &b.entries[entry]
	e.Link, e.Tag = s.Link, s.Tag
	return *e
}

// Entries are the blocks so far, in order. The caller must not change them.
func (b *Builder) Entries() []Entry { return b.entries }

// Used is how many bytes of blocks the pack has.
func (b *Builder) Used() int { return len(b.buf) - idSize }

// At returns the ciphertext of an entry, as a view of the pack.
func (b *Builder) At(e Entry) []byte { return b.buf[e.Offset : e.Offset+e.Length] }

// Seal ends the pack: it is padded to the smallest class that holds it, the
// index and the trailer are sealed. The bytes are the builder's memory.
func (b *Builder) Seal(read secret.Key) (erasure.Class, []byte, error) {
	class, ok := erasure.ClassFor(b.size())
	if !ok {
		return 0, nil, fmt.Errorf("%w: %d bytes", ErrFull, b.size())
	}
	id := b.buf[:idSize]
	index := make([]byte, 0, len(b.entries)*entrySize+tagSize)
	for _, e := range b.entries {
		index = e.append(index)
	}
	index = secret.SealOnce(secret.Derive(read, contextIndex, id), index, index)

	trailer := make([]byte, 12, trailerSize)
	binary.LittleEndian.PutUint32(trailer, version)
	binary.LittleEndian.PutUint32(trailer[4:], uint32(len(b.entries)))
	binary.LittleEndian.PutUint32(trailer[8:], uint32(len(index)))
	trailer = secret.SealOnce(secret.Derive(read, contextTrailer, id), trailer, trailer)

	used := len(b.buf)
	out := b.buf[:class.Size()]
	end := len(out) - trailerSize - len(index)
	secret.Stream(secret.Derive(read, contextPadding, id), out[used:end])
	copy(out[end:], index)
	copy(out[end+len(index):], trailer)
	return class, out, nil
}

func (e Entry) append(b []byte) []byte {
	b = e.Link.Append(b)
	b = append(b, e.Tag[:]...)
	b = binary.LittleEndian.AppendUint32(b, e.Offset)
	return binary.LittleEndian.AppendUint32(b, e.Length)
}

// ReadIndex lists the blocks of a pack of this class. read returns ranges of
// the pack; the index is taken from its end, and nothing of it is believed
// before it was authenticated.
func ReadIndex(key secret.Key, class erasure.Class, read func(offset, length int) ([]byte, error)) ([]Entry, error) {
	id, err := read(0, idSize)
	if err != nil {
		return nil, err
	}
	sealed, err := read(class.Size()-trailerSize, trailerSize)
	if err != nil {
		return nil, err
	}
	trailer, err := secret.OpenOnce(secret.Derive(key, contextTrailer, id), nil, sealed)
	if err != nil || len(trailer) != 12 || binary.LittleEndian.Uint32(trailer) != version {
		return nil, fmt.Errorf("%w: trailer", ErrCorrupt)
	}
	count, size := int(binary.LittleEndian.Uint32(trailer[4:])), int(binary.LittleEndian.Uint32(trailer[8:]))
	if size != count*entrySize+tagSize || size > class.Size()-trailerSize-idSize {
		return nil, fmt.Errorf("%w: %d entries in %d bytes", ErrCorrupt, count, size)
	}
	if sealed, err = read(class.Size()-trailerSize-size, size); err != nil {
		return nil, err
	}
	index, err := secret.OpenOnce(secret.Derive(key, contextIndex, id), nil, sealed)
	if err != nil {
		return nil, fmt.Errorf("%w: index", ErrCorrupt)
	}
	return parseIndex(index, class.Size()-trailerSize-size)
}

// parseIndex reads entries that must lie within the pack's first end bytes.
func parseIndex(b []byte, end int) ([]Entry, error) {
	if len(b)%entrySize != 0 {
		return nil, fmt.Errorf("%w: index of %d bytes", ErrCorrupt, len(b))
	}
	out := make([]Entry, 0, len(b)/entrySize)
	for ; len(b) > 0; b = b[entrySize:] {
		var e Entry
		if err := e.Link.UnmarshalBinary(b[:link.EncodedSize]); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		rest := b[link.EncodedSize:]
		e.Tag = block.Tag(rest[:16])
		e.Offset, e.Length = binary.LittleEndian.Uint32(rest[16:]), binary.LittleEndian.Uint32(rest[20:])
		if e.Offset < idSize || uint64(e.Offset)+uint64(e.Length) > uint64(end) || e.Length > block.MaxSealed {
			return nil, fmt.Errorf("%w: entry at %d+%d", ErrCorrupt, e.Offset, e.Length)
		}
		out = append(out, e)
	}
	return out, nil
}
