package erasure

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"lukechampine.com/blake3/bao"
	"lukechampine.com/blake3/guts"
)

// Root is the BLAKE3 hash of a shard, its address.
type Root [32]byte

// String is the root in hexadecimal, shortened.
func (r Root) String() string { return fmt.Sprintf("%x", r[:8]) }

// groupLog makes Bao's leaves 16 KiB: 2⁴ BLAKE3 chunks of 1 KiB.
const groupLog = 4

const leafSize = guts.ChunkSize << groupLog

// Unit is the alignment of the ranges that readers ask of holders, so that
// they do not show where blocks begin and end.
const Unit = 64 << 10

// ErrProof says that a slice does not prove its bytes against the root.
var ErrProof = errors.New("range does not match the shard's root")

// Outboard returns the Bao tree of a shard (its inner nodes in pre-order,
// after the length) and its root. It equals bao.EncodeBuf(shard, 4, true),
// without its copies.
func Outboard(shard []byte) ([]byte, Root) {
	out := make([]byte, bao.EncodedSize(len(shard), groupLog, true))
	binary.LittleEndian.PutUint64(out, uint64(len(shard)))
	cv := subtree(out[8:], shard, 0, guts.FlagRoot)
	return out, Root(cvBytes(cv))
}

// RootOf returns the root of a shard alone.
func RootOf(shard []byte) Root {
	_, r := Outboard(shard)
	return r
}

// subtree hashes p, whose first chunk has this number in the whole, and writes
// its inner nodes to out in pre-order.
func subtree(out, p []byte, chunk uint64, flags uint32) [8]uint32 {
	if len(p) <= leafSize {
		n := leaf(p, chunk)
		n.Flags |= flags
		return guts.ChainingValue(n)
	}
	mid := 1 << (bits.Len64(uint64(len(p)-1)) - 1)
	leftNodes := (mid/leafSize - 1) * 64
	l := subtree(out[64:], p[:mid], chunk, 0)
	r := subtree(out[64+leftNodes:], p[mid:], chunk+uint64(mid)/guts.ChunkSize, 0)
	copy(out, cvBytes(l))
	copy(out[32:], cvBytes(r))
	return guts.ChainingValue(guts.ParentNode(l, r, &guts.IV, flags))
}

// leaf hashes up to 16 KiB.
func leaf(p []byte, chunk uint64) guts.Node {
	if len(p) == leafSize {
		return guts.CompressBuffer((*[leafSize]byte)(p), leafSize, &guts.IV, chunk, 0)
	}
	var buf [leafSize]byte
	return guts.CompressBuffer(&buf, copy(buf[:], p), &guts.IV, chunk, 0)
}

func cvBytes(cv [8]uint32) []byte {
	var b [32]byte
	for i, w := range cv {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return b[:]
}

// SliceSize is the length of the slice that proves length bytes at offset of a
// shard of this size; offset and length must lie within it.
func SliceSize(shardSize int, offset, length int) int {
	return 8 + sliceSize(0, shardSize, offset, length)
}

func sliceSize(pos, size, offset, length int) int {
	if pos >= offset+length || offset >= pos+size {
		return 0
	}
	if size <= leafSize {
		return size
	}
	mid := 1 << (bits.Len64(uint64(size-1)) - 1)
	return 64 + sliceSize(pos, mid, offset, length) + sliceSize(pos+mid, size-mid, offset, length)
}

// leafRange widens a range to whole leaves of a shard of this size.
func leafRange(shardSize, offset, length int) (from, to int) {
	from = offset / leafSize * leafSize
	to = min(shardSize, (offset+length+leafSize-1)/leafSize*leafSize)
	return from, to
}

func words(b [32]byte) (w [8]uint32) {
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}
