package commit

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"

	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/record"
)

const (
	version = 1
	context = "skep commit v1"

	// MaxHead is the largest encoded head, in bytes.
	MaxHead = 2 << 10

	maxSegments = 64
	maxParents  = 64
	maxFollowed = 256
	// tableBytes is how large a piece of the group table may become.
	tableBytes = 512 << 10
)

// ErrInvalid says that a commit, table or head is well formed but says what
// cannot be.
var ErrInvalid = errors.New("invalid commit")

// Locator says where a block lies, with all that is needed to fetch and open
// it without an index. The zero group stands for the pack that holds the
// locator itself.
type Locator struct {
	_      struct{} `cbor:",toarray"`
	Group  group.ID
	Number uint16
	Class  erasure.Class
	Coding erasure.Coding
	Offset uint32
	Length uint32
	Link   link.Link
}

// In returns the locator as seen from outside: where it says "the same pack",
// it takes that of the block that holds it.
func (l Locator) In(holder Locator) Locator {
	if l.Group == (group.ID{}) {
		l.Group, l.Number, l.Class, l.Coding = holder.Group, holder.Number, holder.Class, holder.Coding
	}
	return l
}

// check bounds a locator that stands alone.
func (l Locator) check() error {
	if !l.Coding.Valid(l.Class) || l.Number >= group.MaxPacks || l.Length > block.MaxSealed ||
		uint64(l.Offset)+uint64(l.Length) > uint64(l.Class.Size()) {
		return fmt.Errorf("%w: locator", ErrInvalid)
	}
	return nil
}

// Piece is one block of an index segment, or a list of such.
type Piece struct {
	_     struct{}  `cbor:",toarray"`
	First link.Hash // of its first entry
	At    Locator
}

// Segment is one sorted run of the block index.
type Segment struct {
	_     struct{} `cbor:",toarray"`
	Count uint64   // entries
	// Lists says that Pieces are blocks that list pieces, as EncodePieces made them:
	// what a commit says of its index stays short, however large that is.
	Lists  bool
	Pieces []Piece
}

// EncodePieces makes a list of pieces of a segment; their locators must stand alone.
func EncodePieces(pieces []Piece) []byte { return record.Encode(pieces) }

// DecodePieces reads a list of pieces.
func DecodePieces(b []byte) ([]Piece, error) {
	var out []Piece
	if err := record.Decode(b, block.MaxPlain, &out); err != nil {
		return nil, fmt.Errorf("list of index pieces: %w", err)
	}
	for _, p := range out {
		if err := p.At.check(); err != nil {
			return nil, fmt.Errorf("list of index pieces: %w", err)
		}
	}
	return out, nil
}

// Links are the blocks that pieces are.
func Links(pieces []Piece) []link.Link {
	out := make([]link.Link, len(pieces))
	for i, p := range pieces {
		out[i] = p.At.Link
	}
	return out
}

// Followed says that a commit follows those of a device up to a number.
type Followed struct {
	_      struct{} `cbor:",toarray"`
	Device group.PeerKey
	Number uint64
}

// Commit is a state of the drive.
type Commit struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Drive   [16]byte
	Epoch   uint32        // of the drive's secrets under which it was written
	Device  group.PeerKey // who wrote and signed it
	Number  uint64        // one more than that of its parent
	Time    int64         // Unix seconds
	Parents []link.Link
	Follows []Followed // of other devices, what it follows, by device
	Root    []byte     // inode record of the root directory
	Links   link.Link  // table of the inodes with several links; zero if empty
	// Segments of the block index, the newest last.
	Segments []Segment
	// Groups are the pieces of the group table.
	Groups       []Locator
	Files, Bytes int64 // how many inodes the drive holds, and how many bytes by their sizes
}

// Sign encodes the commit, signed by its device.
func (c Commit) Sign(key ed25519.PrivateKey) []byte {
	c.Version, c.Device = version, group.PeerKey(key.Public().(ed25519.PublicKey))
	return record.Sign(key, context, c)
}

// Parse decodes a commit and checks its signature. Whether the device may
// write to the drive, the caller knows.
func Parse(b []byte) (Commit, error) {
	var c Commit
	s, err := record.Parse(b, block.MaxPlain, &c)
	if err != nil {
		return Commit{}, fmt.Errorf("commit: %w", err)
	}
	if c.Version != version || len(c.Segments) > maxSegments || len(c.Parents) > maxParents || len(c.Follows) > maxFollowed || c.Files < 0 || c.Bytes < 0 {
		return Commit{}, fmt.Errorf("commit %d: %w", c.Number, ErrInvalid)
	}
	if err := s.Verify(c.Device[:], context); err != nil {
		return Commit{}, err
	}
	return c, nil
}

// After reports whether the commit is, or follows, that of a device with a number.
func (c *Commit) After(device group.PeerKey, number uint64) bool {
	if c.Device == device {
		return number <= c.Number
	}
	for _, f := range c.Follows {
		if f.Device == device {
			return number <= f.Number
		}
	}
	return false
}

// FollowedBy returns what the next commit follows, which a device makes: of more devices
// than there is room for, those that made the last commits. Whoever goes by that takes a
// commit for not followed that was made before all of these; never one that is not followed
// for one that is.
func (c *Commit) FollowedBy(device group.PeerKey) []Followed {
	var out []Followed
	for _, f := range append([]Followed{{Device: c.Device, Number: c.Number}}, c.Follows...) {
		if f.Device != device {
			out = append(out, f)
		}
	}
	slices.SortFunc(out, func(a, b Followed) int { return cmp.Compare(b.Number, a.Number) })
	out = out[:min(len(out), maxFollowed)]
	slices.SortFunc(out, func(a, b Followed) int { return bytes.Compare(a.Device[:], b.Device[:]) })
	return out
}

// RootRecord is the inode record of the root directory.
func (c *Commit) RootRecord() (dag.Inode, error) { return dag.DecodeInode(c.Root) }

// Refs are the blocks that the commit needs directly.
func (c *Commit) Refs() ([]link.Link, error) {
	root, err := c.RootRecord()
	if err != nil {
		return nil, err
	}
	var out []link.Link
	add := func(l link.Link) {
		if !l.IsZero() {
			out = append(out, l)
		}
	}
	add(root.Content)
	add(c.Links)
	for _, s := range c.Segments {
		out = append(out, Links(s.Pieces)...)
	}
	for _, g := range c.Groups {
		add(g.Link)
	}
	return out, nil
}

// EncodeGroups cuts the group table into pieces.
func EncodeGroups(all []group.Group) [][]byte {
	var out [][]byte
	var part []group.Group
	size := 0
	for _, g := range all {
		n := 160 + 34*len(g.Slots) + 38*len(g.Former)
		if size+n > tableBytes {
			out = append(out, record.Encode(part))
			part, size = nil, 0
		}
		part, size = append(part, g), size+n
	}
	if len(part) > 0 {
		out = append(out, record.Encode(part))
	}
	return out
}

// DecodeGroups reads one piece of the group table.
func DecodeGroups(b []byte) ([]group.Group, error) {
	var out []group.Group
	if err := record.Decode(b, block.MaxPlain, &out); err != nil {
		return nil, fmt.Errorf("group table: %w", err)
	}
	for _, g := range out {
		if !g.Coding.Valid(g.Class) || len(g.Slots) != int(g.Coding.N) || g.Packs > group.MaxPacks || !g.FormerValid() {
			return nil, fmt.Errorf("group table: group %v: %w", g.ID, ErrInvalid)
		}
	}
	return out, nil
}

// Head points to a device's newest commit. It travels sealed in slot records.
type Head struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Drive   [16]byte
	Device  group.PeerKey
	Number  uint64 // of the commit
	Time    int64  // Unix seconds
	Commit  Locator
}

// Encode returns the bytes that the head's slot records seal.
func (h Head) Encode() []byte {
	h.Version = version
	return record.Encode(h)
}

// ParseHead decodes an opened head.
func ParseHead(b []byte) (Head, error) {
	var h Head
	if err := record.Decode(b, MaxHead, &h); err != nil {
		return Head{}, fmt.Errorf("head: %w", err)
	}
	if h.Version != version {
		return Head{}, fmt.Errorf("head of version %d: %w", h.Version, ErrInvalid)
	}
	return h, h.Commit.check()
}
