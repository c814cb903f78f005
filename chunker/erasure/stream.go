package erasure

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"sync"

	"lukechampine.com/blake3/guts"
)

// OutboardSize is the length of the outboard tree of a shard of this size.
func OutboardSize(shardSize int) int {
	return 8 + 64*(Leaves(shardSize)-1)
}

// Leaves is how many leaves of 16 KiB, the last perhaps shorter, a shard of
// this size has.
func Leaves(shardSize int) int { return max(1, (shardSize+leafSize-1)/leafSize) }

// ErrLength says that a shard had more or fewer bytes than its size.
var ErrLength = errors.New("shard has the wrong length")

// A Tree computes the outboard tree of a shard that is written to it from the
// start to the end, and keeps one hash a leaf of it instead of the bytes. Not
// for concurrent use.
type Tree struct {
	size    int
	cvs     [][8]uint32
	single  guts.Node // of the only leaf, where there is just one
	written int
	part    []byte // of a leaf that is not complete
}

// NewTree returns the empty tree of a shard of this size.
func NewTree(shardSize int) *Tree {
	return &Tree{size: shardSize, cvs: make([][8]uint32, 0, Leaves(shardSize))}
}

// Write adds the next bytes of the shard. More of them than the shard has give
// ErrLength. Whole leaves, written as such, are not copied.
func (t *Tree) Write(p []byte) (int, error) {
	if len(p) > t.size-t.written {
		return 0, ErrLength
	}
	n := len(p)
	t.written += n
	if len(t.part) > 0 {
		k := min(len(p), leafSize-len(t.part))
		t.part = append(t.part, p[:k]...)
		p = p[k:]
		if len(t.part) < leafSize {
			return n, nil
		}
		t.leaf(t.part)
		t.part = t.part[:0]
	}
	for len(p) >= leafSize {
		t.leaf(p[:leafSize])
		p = p[leafSize:]
	}
	t.part = append(t.part, p...)
	return n, nil
}

func (t *Tree) leaf(p []byte) {
	t.single = leaf(p, uint64(len(t.cvs))*(leafSize/guts.ChunkSize))
	t.cvs = append(t.cvs, guts.ChainingValue(t.single))
}

// Sum returns what Outboard returns of the whole shard, or ErrLength when it
// was not written to its end.
func (t *Tree) Sum() ([]byte, Root, error) {
	if t.written != t.size {
		return nil, Root{}, fmt.Errorf("%w: %d of %d bytes", ErrLength, t.written, t.size)
	}
	if len(t.part) > 0 || len(t.cvs) == 0 {
		t.leaf(t.part)
		t.part = nil
	}
	out := make([]byte, OutboardSize(t.size))
	binary.LittleEndian.PutUint64(out, uint64(t.size))
	if len(t.cvs) == 1 {
		n := t.single
		n.Flags |= guts.FlagRoot
		return out, Root(cvBytes(guts.ChainingValue(n))), nil
	}
	return out, Root(cvBytes(joinLeaves(out[8:], t.cvs, guts.FlagRoot))), nil
}

// joinLeaves writes the inner nodes above these leaves to out in pre-order.
func joinLeaves(out []byte, cvs [][8]uint32, flags uint32) [8]uint32 {
	if len(cvs) == 1 {
		return cvs[0]
	}
	mid := 1 << (bits.Len(uint(len(cvs)-1)) - 1)
	l := joinLeaves(out[64:], cvs[:mid], 0)
	r := joinLeaves(out[64*mid:], cvs[mid:], 0)
	copy(out, cvBytes(l))
	copy(out[32:], cvBytes(r))
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

// window is how much of a shard is read or written at once.
const window = 128 << 10

var windows = sync.Pool{New: func() any { return new([window]byte) }}

// WriteSlice writes the slice that proves length bytes at offset of a shard:
// SliceSize bytes, those of Bao. The shard is read from data, no more than the leaves that the range touches and 128 KiB at once;
// each leaf is compared with the outboard tree before it is written, and one
// that differs gives ErrProof. The outboard itself is trusted.
func WriteSlice(w io.Writer, data io.ReaderAt, outboard []byte, offset, length int) error {
	if len(outboard) < 8 {
		return ErrProof
	}
	size := int(binary.LittleEndian.Uint64(outboard))
	if length <= 0 || offset < 0 || length > size-offset || len(outboard) != OutboardSize(size) {
		return ErrProof
	}
	from, to := leafRange(size, offset, length)
	buf := windows.Get().(*[window]byte)
	defer windows.Put(buf)
	s := sliceWriter{
		w: w, data: io.NewSectionReader(data, int64(from), int64(to-from)), buf: buf[:],
		offset: offset, length: length,
	}
	if _, err := w.Write(outboard[:8]); err != nil {
		return err
	}
	return s.subtree(nil, outboard[8:], 0, size)
}

type sliceWriter struct {
	w              io.Writer
	data           io.Reader
	buf            []byte // all of the window
	have           []byte // what of it was read and not yet written
	offset, length int
}

// subtree writes the part of the slice below one node. want is the node's hash
// as its parent has it, nil for the root of a tree.
func (s *sliceWriter) subtree(want, nodes []byte, pos, size int) error {
	if pos >= s.offset+s.length || s.offset >= pos+size {
		return nil
	}
	if size <= leafSize {
		return s.leaf(want, pos, size)
	}
	if _, err := s.w.Write(nodes[:64]); err != nil {
		return err
	}
	mid := 1 << (bits.Len64(uint64(size-1)) - 1)
	if err := s.subtree(nodes[:32], nodes[64:], pos, mid); err != nil {
		return err
	}
	return s.subtree(nodes[32:64], nodes[64*(mid/leafSize):], pos+mid, size-mid)
}

func (s *sliceWriter) leaf(want []byte, pos, size int) error {
	if len(s.have) < size {
		n := copy(s.buf, s.have)
		m, err := io.ReadAtLeast(s.data, s.buf[n:], size-n)
		if err != nil {
			return fmt.Errorf("shard at %d: %w", pos, cutShort(err))
		}
		s.have = s.buf[:n+m]
	}
	p := s.have[:size]
	s.have = s.have[size:]
	if want != nil && !bytes.Equal(cvBytes(guts.ChainingValue(leaf(p, uint64(pos)/guts.ChunkSize))), want) {
		return fmt.Errorf("shard at %d: %w", pos, ErrProof)
	}
	_, err := s.w.Write(p)
	return err
}

// cutShort turns the end of a shard before its size into ErrProof.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrProof
	}
	return err
}

// ReadSlice reads a slice of SliceSize bytes from r as it comes, checks it against the
// root of a shard of this size, and fills dst with the proved bytes at offset. It returns
// ErrProof as soon as a node or leaf is wrong, or the error of r; dst is then
// partly filled with bytes that were proved, or with bytes that were not, and
// must not be used.
func ReadSlice(r io.Reader, dst []byte, shardSize, offset int, root Root) error {
	if len(dst) == 0 || offset < 0 || offset > shardSize || len(dst) > shardSize-offset {
		return ErrProof
	}
	var head [8]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	if binary.LittleEndian.Uint64(head[:]) != uint64(shardSize) {
		return ErrProof
	}
	s := sliceReader{r: r, dst: dst, offset: offset}
	return s.subtree(root, 0, shardSize, guts.FlagRoot)
}

type sliceReader struct {
	r      io.Reader
	dst    []byte
	offset int
	node   [64]byte
	spare  []byte // for leaves that lie partly outside the range
}

func (s *sliceReader) subtree(want [32]byte, pos, size int, flags uint32) error {
	if pos >= s.offset+len(s.dst) || s.offset >= pos+size {
		return nil
	}
	if size <= leafSize {
		return s.leaf(want, pos, size, flags)
	}
	if _, err := io.ReadFull(s.r, s.node[:]); err != nil {
		return err
	}
	l, r := [32]byte(s.node[:32]), [32]byte(s.node[32:])
	if [32]byte(cvBytes(guts.ChainingValue(guts.ParentNode(words(l), words(r), &guts.IV, flags)))) != want {
		return ErrProof
	}
	mid := 1 << (bits.Len64(uint64(size-1)) - 1)
	if err := s.subtree(l, pos, mid, 0); err != nil {
		return err
	}
	return s.subtree(r, pos+mid, size-mid, 0)
}

func (s *sliceReader) leaf(want [32]byte, pos, size int, flags uint32) error {
	whole := pos >= s.offset && pos+size <= s.offset+len(s.dst)
	var p []byte
	if whole {
		p = s.dst[pos-s.offset:][:size]
	} else {
		if s.spare == nil {
			s.spare = make([]byte, leafSize)
		}
		p = s.spare[:size]
	}
	if _, err := io.ReadFull(s.r, p); err != nil {
		return err
	}
	n := leaf(p, uint64(pos)/guts.ChunkSize)
	n.Flags |= flags
	if [32]byte(cvBytes(guts.ChainingValue(n))) != want {
		return ErrProof
	}
	if !whole {
		lo, hi := max(0, s.offset-pos), min(size, s.offset+len(s.dst)-pos)
		copy(s.dst[pos+lo-s.offset:], p[lo:hi])
	}
	return nil
}
