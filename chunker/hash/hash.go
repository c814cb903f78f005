package hash

import (
	"encoding/binary"
	"sync"

	"github.com/zeebo/blake3"
	"lukechampine.com/blake3/guts"
)

// CV is a chaining value: the hash of a chunk, or of a pair of such, within a tree.
type CV = [8]uint32

// lanes is how many chunks or pairs are hashed at once.
const lanes = 16

// LeafSize is the size of a leaf: as many chunks as are hashed at once.
const LeafSize = lanes * guts.ChunkSize

// mostChunks bounds what is hashed here as a whole: a block of the largest size, in
// chunks.
const mostChunks = 1120

// room takes the chaining values of all chunks, and of the pairs after them.
type room [mostChunks + lanes]CV

var rooms = sync.Pool{New: func() any { return new(room) }}

// Sum is the BLAKE3 hash of p.
func Sum(p []byte) [32]byte {
	if !fits(p) {
		return blake3.Sum256(p)
	}
	return sum(p, &guts.IV, 0)
}

// Keyed is the BLAKE3 hash of p, keyed.
func Keyed(key [32]byte, p []byte) (out [32]byte) {
	if fits(p) {
		cv := CV{}
		for i := range cv {
			cv[i] = binary.LittleEndian.Uint32(key[4*i:])
		}
		return sum(p, &cv, guts.FlagKeyedHash)
	}
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("BUG: hash: " + err.Error()) // the key size is right by type
	}
	_, _ = h.Write(p)
	h.Sum(out[:0])
	return out
}

// fits reports whether p is hashed here, sixteen chunks at once.
func fits(p []byte) bool { return wide && len(p) >= LeafSize && len(p) <= mostChunks*guts.ChunkSize }

func sum(p []byte, key *CV, flags uint32) [32]byte {
	r := rooms.Get().(*room)
	defer rooms.Put(r)
	n := len(p) / guts.ChunkSize
	chunks(r[:], p[:n*guts.ChunkSize], key, 0, flags)
	if rest := p[n*guts.ChunkSize:]; len(rest) > 0 {
		r[n] = guts.ChainingValue(guts.CompressChunk(rest, key, uint64(n), flags))
		n++
	}
	for n > 2 {
		n = pairs(r[:], n, key, flags)
	}
	return Bytes(guts.ChainingValue(guts.ParentNode(r[0], r[1], key, flags|guts.FlagRoot)))
}

// Bytes is a chaining value as it stands in trees.
func Bytes(cv CV) (b [32]byte) {
	for i, w := range cv {
		binary.LittleEndian.PutUint32(b[4*i:], w)
	}
	return b
}

// AppendLeaves appends the chaining values of whole leaves, the first chunk of which
// has this number in what they are part of.
func AppendLeaves(dst []CV, p []byte, chunk uint64) []CV {
	if !wide {
		for ; len(p) >= LeafSize; p = p[LeafSize:] {
			n := guts.CompressBuffer((*[LeafSize]byte)(p), LeafSize, &guts.IV, chunk, 0)
			dst = append(dst, guts.ChainingValue(n))
			chunk += lanes
		}
		return dst
	}
	r := rooms.Get().(*room)
	defer rooms.Put(r)
	const most = mostChunks / lanes * LeafSize
	for len(p) >= LeafSize {
		part := p[:min(len(p), most)/LeafSize*LeafSize]
		p = p[len(part):]
		chunks(r[:], part, &guts.IV, chunk, 0)
		n := len(part) / guts.ChunkSize
		chunk += uint64(n)
		for range 4 { // a leaf has 2⁴ chunks
			n = pairs(r[:], n, &guts.IV, 0)
		}
		dst = append(dst, r[:n]...)
	}
	return dst
}

// Level returns the chaining values of the pairs of cvs, the level above it of a tree:
// where their number is odd, the last one rises as it is.
func Level(cvs []CV) []CV {
	out := make([]CV, (len(cvs)+1)/2, len(cvs)+2*lanes)
	if wide {
		out = out[:len(cvs)]
		copy(out, cvs)
		return out[:pairs(out[:cap(out)], len(cvs), &guts.IV, 0)]
	}
	for i := range out {
		if out[i] = cvs[2*i]; 2*i+1 < len(cvs) {
			out[i] = guts.ChainingValue(guts.ParentNode(cvs[2*i], cvs[2*i+1], &guts.IV, 0))
		}
	}
	return out
}

// chunks hashes whole chunks, from one of this number on, each into its place in cvs,
// which has room for some more.
func chunks(cvs []CV, p []byte, key *CV, first uint64, flags uint32) {
	for ; len(p) >= LeafSize; p = p[LeafSize:] {
		chunk16((*[lanes]CV)(cvs), (*[LeafSize]byte)(p), key, first, flags)
		cvs, first = cvs[lanes:], first+lanes
	}
	if len(p) > 0 {
		var last [LeafSize]byte
		copy(last[:], p)
		chunk16((*[lanes]CV)(cvs), &last, key, first, flags)
	}
}

func chunk16(out *[lanes]CV, p *[LeafSize]byte, key *CV, first uint64, flags uint32) {
	var counters [2][lanes]uint32
	for i := range uint64(lanes) {
		counters[0][i], counters[1][i] = uint32(first+i), uint32((first+i)>>32)
	}
	const blocks = guts.ChunkSize / guts.BlockSize
	compress16(out, &p[0], guts.ChunkSize, blocks, key, &counters, flags|guts.FlagChunkStart, flags, flags|guts.FlagChunkEnd)
}

// pairs puts the chaining values of the pairs of the first n in their place, and
// returns how many these are: where n is odd, the last one rises as it is. There has to
// be room behind them for some more.
func pairs(cvs []CV, n int, key *CV, flags uint32) int {
	var none [2][lanes]uint32
	flags |= guts.FlagParent
	last := cvs[n-1]
	for at := 0; at < n/2; at += lanes {
		in := (*[2 * lanes]CV)(cvs[2*at:])
		compress16((*[lanes]CV)(cvs[at:]), bytesOf(in), guts.BlockSize, 1, key, &none, flags, flags, flags)
	}
	if n%2 == 1 {
		cvs[n/2] = last
	}
	return (n + 1) / 2
}
