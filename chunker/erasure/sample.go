package erasure

import (
	"encoding/binary"
	"fmt"
	"io"

	"github.com/zeebo/blake3"
)

// A Nonce is what an auditor draws at random for one audit.
type Nonce [32]byte

// MaxSamples is how many samples one chain may have: the prover holds its
// answer in memory.
const MaxSamples = 16

// A sampler names the leaves of a shard that one audit looks at: the first
// follows from the nonce and the shard's root, each next one from the nonce and
// the bytes of the leaf before it. Who does not have a sampled leaf at hand
// cannot know the next position, so a prover that fetches shards from others
// pays one round trip a sample. The number of the sample goes into the hash, so
// that a leaf drawn twice does not make the chain turn in a circle.
type sampler struct {
	nonce  Nonce
	size   int
	number uint32
	leaf   int
}

// newSampler starts the chain of a shard of this size and root.
func newSampler(nonce Nonce, shardSize int, root Root) *sampler {
	s := &sampler{nonce: nonce, size: shardSize}
	s.leaf = s.draw(root[:])
	return s
}

// Range is the sampled leaf as an offset in the shard and a length.
func (s *sampler) Range() (offset, length int) {
	offset = s.leaf * leafSize
	return offset, min(leafSize, s.size-offset)
}

// Next moves to the sample that follows from the bytes of this one.
func (s *sampler) Next(leaf []byte) {
	s.number++
	s.leaf = s.draw(leaf)
}

// draw is BLAKE3 in key derivation mode over nonce, number and seed, its first
// eight bytes reduced to a leaf. Shards have at most 2¹² leaves, so the
// reduction's bias is below 2⁻⁵².
func (s *sampler) draw(seed []byte) int {
	h := blake3.NewDeriveKey("skep 2026 audit sample v1")
	_, _ = h.Write(s.nonce[:])
	var n [4]byte
	binary.LittleEndian.PutUint32(n[:], s.number)
	_, _ = h.Write(n[:])
	_, _ = h.Write(seed)
	var sum [32]byte
	h.Sum(sum[:0])
	return int(binary.LittleEndian.Uint64(sum[:8]) % uint64(Leaves(s.size)))
}

// SamplesSize is the largest encoding of count samples of a shard of this
// size; where all leaves lie equally deep, it is the exact one.
func SamplesSize(shardSize, count int) int {
	return count * SliceSize(shardSize, 0, min(leafSize, shardSize))
}

// WriteSamples writes the answer to an audit: the slice of each sampled leaf,
// one after the other. It reads and checks as WriteSlice does.
func WriteSamples(w io.Writer, data io.ReaderAt, outboard []byte, nonce Nonce, root Root, count int) error {
	if len(outboard) < 8 {
		return ErrProof
	}
	size := int(binary.LittleEndian.Uint64(outboard))
	if len(outboard) != OutboardSize(size) {
		return ErrProof
	}
	s := newSampler(nonce, size, root)
	buf := make([]byte, leafSize)
	for range count {
		off, n := s.Range()
		if err := WriteSlice(w, data, outboard, off, n); err != nil {
			return err
		}
		if _, err := data.ReadAt(buf[:n], int64(off)); err != nil && err != io.EOF {
			return fmt.Errorf("sample at %d: %w", off, err)
		}
		s.Next(buf[:n])
	}
	return nil
}

// ReadSamples reads the answer to an audit and checks it. A wrong sample gives
// ErrProof; errors of r are returned as they are. Anybody who has the root can
// check.
func ReadSamples(r io.Reader, nonce Nonce, shardSize int, root Root, count int) error {
	s := newSampler(nonce, shardSize, root)
	buf := make([]byte, leafSize)
	for range count {
		off, n := s.Range()
		if err := ReadSlice(r, buf[:n], shardSize, off, root); err != nil {
			return err
		}
		s.Next(buf[:n])
	}
	return nil
}
