package block

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"

	"github.com/klauspost/compress/zstd"
	"github.com/zeebo/blake3"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// MaxPlain is the largest plaintext of a block, in bytes. Chunks are 1 MiB;
// nodes and records are kept below that too, so the slack is for headers.
const MaxPlain = 1<<20 + 64<<10

// Overhead bounds what sealing adds to a plaintext that does not compress.
const Overhead = headerSize + tagSize

// MaxSealed is the largest ciphertext of a block.
const MaxSealed = MaxPlain + Overhead

const (
	version    = 1
	headerSize = 4
	tagSize    = 16 // of the cipher

	plainPayload = 0
	zstdPayload  = 1

	cipherAESGCM = 1
)

// minCompress is the smallest plaintext worth trying: below it the frame's
// overhead eats the gain.
const minCompress = 96

var (
	// ErrCorrupt says that a ciphertext is not the block its link names:
	// the hash, the authenticator or the contents do not fit.
	ErrCorrupt = errors.New("block is corrupt")
	// ErrTooLarge says that a plaintext exceeds MaxPlain.
	ErrTooLarge = errors.New("block is too large")
)

// Tag finds duplicates: 16 bytes of the keyed hash of the plaintext. It means
// something only to those who have the convergence secret.
type Tag [16]byte

// Sealed is a block ready to be stored.
type Sealed struct {
	Link       link.Link
	Tag        Tag
	Ciphertext []byte
}

// Sealer seals the blocks of one drive and epoch. It is safe for concurrent
// use.
type Sealer struct {
	convergence secret.Key
}

// Format hides the secret from every formatting verb.
func (s Sealer) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("block.Sealer(…)")) }

// NewSealer returns a Sealer for a convergence secret.
func NewSealer(convergence secret.Key) *Sealer { return &Sealer{convergence} }

// Tag returns the tag by which a duplicate of this plaintext is found, at the
// cost of one pass of BLAKE3.
func (s *Sealer) Tag(codec uint64, plain []byte) Tag {
	h := header(codec, plainPayload)
	k := s.keyOf(h[:], plain)
	return Tag(k[:16])
}

// Prepared is a plaintext about to be sealed, whose tag is known, so that a
// duplicate need not be sealed at all. It keeps a view of the plaintext.
type Prepared struct {
	s     *Sealer
	codec uint64
	msg   []byte // what is sealed: header and payload
	tag   Tag
	key   secret.Key // of msg
}

// Format hides plaintext and key from every formatting verb.
func (p Prepared) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("block.Prepared(…)")) }

// Headroom is what PrepareFramed wants before a plaintext: more than the header,
// so that the plaintext is read to the beginning of a line of the processor's cache.
const Headroom = 64

// Prepare hashes plain.
func (s *Sealer) Prepare(codec uint64, plain []byte) (Prepared, error) {
	return s.PrepareFramed(codec, append(make([]byte, Headroom, Headroom+len(plain)), plain...))
}

// PrepareFramed is Prepare for the plaintext buf[Headroom:]. Nothing of it is
// copied: the header is written before it.
func (s *Sealer) PrepareFramed(codec uint64, buf []byte) (Prepared, error) {
	if n := len(buf) - Headroom; n > MaxPlain {
		return Prepared{}, fmt.Errorf("%w: %d bytes", ErrTooLarge, n)
	}
	msg := buf[Headroom-headerSize:]
	h := header(codec, plainPayload)
	copy(msg, h[:])
	key := s.keyOf(msg)
	return Prepared{s, codec, msg, Tag(key[:16]), key}, nil
}

// Tag is the tag by which a duplicate is found.
func (p *Prepared) Tag() Tag { return p.tag }

// Compress has the block compressed where that pays. The payload then lies in
// the room of buf, which must stay as it is until Seal.
func (p *Prepared) Compress(buf []byte) {
	if msg := compress(buf, p.codec, p.msg[headerSize:]); msg != nil {
		p.msg, p.key = msg, p.s.keyOf(msg)
	}
}

// SealedSize is how many bytes of ciphertext Seal gives.
func (p *Prepared) SealedSize() int { return len(p.msg) + tagSize }

// Seal seals the block. The ciphertext is appended to dst[:0] if its capacity
// suffices; neither plaintext nor dst are kept.
func (p *Prepared) Seal(dst []byte) Sealed {
	ct := secret.SealOnce(p.key, dst, p.msg)
	return Sealed{
		Link:       link.Link{Hash: HashOf(ct), Key: p.key, Codec: p.codec},
		Tag:        p.tag,
		Ciphertext: ct,
	}
}

// Seal is Prepare, Prepared.Compress and Prepared.Seal in one.
func (s *Sealer) Seal(codec uint64, plain, dst []byte) (Sealed, error) {
	p, err := s.Prepare(codec, plain)
	if err != nil {
		return Sealed{}, err
	}
	p.Compress(nil)
	return p.Seal(dst), nil
}

// HashOf is the identity of a ciphertext.
func HashOf(ciphertext []byte) link.Hash { return link.Hash(blake3.Sum256(ciphertext)) }

// Open checks that ciphertext is the block that l names, and returns its
// plaintext, appended to dst[:0] where its capacity suffices. It does not alter
// ciphertext, unless that is dst too: then the plaintext takes its place.
// Anything else than the very bytes that were sealed gives ErrCorrupt.
func Open(l link.Link, ciphertext, dst []byte) ([]byte, error) {
	if HashOf(ciphertext) != l.Hash {
		return nil, fmt.Errorf("%w: %v does not have its hash", ErrCorrupt, l)
	}
	return OpenHashed(l, ciphertext, dst)
}

// OpenHashed is Open for a ciphertext that is known to have the link's hash.
func OpenHashed(l link.Link, ciphertext, dst []byte) ([]byte, error) {
	if len(ciphertext) > MaxSealed || len(ciphertext) < Overhead {
		return nil, fmt.Errorf("%w: %v has %d bytes", ErrCorrupt, l, len(ciphertext))
	}
	msg, err := secret.OpenOnce(l.Key, dst, ciphertext)
	if err != nil {
		return nil, fmt.Errorf("%w: %v does not open with its key", ErrCorrupt, l)
	}
	plain, err := parse(l.Codec, msg)
	if err != nil {
		return nil, fmt.Errorf("%w: %v: %w", ErrCorrupt, l, err)
	}
	return plain, nil
}

// keyOf is the convergent key of a message, which may be in parts: its hash,
// keyed.
func (s *Sealer) keyOf(msg ...[]byte) secret.Key {
	d, err := blake3.NewKeyed(s.convergence[:])
	if err != nil {
		panic("BUG: block: " + err.Error()) // the key size is right by type
	}
	for _, part := range msg {
		_, _ = d.Write(part)
	}
	var k secret.Key
	d.Sum(k[:0])
	return k
}

// header is version, codec, compression, cipher: a byte each.
func header(codec uint64, compression byte) [headerSize]byte {
	var c byte
	switch codec {
	case link.Raw:
		c = 1
	case link.DagPB:
		c = 2
	case link.CBOR:
		c = 3
	default:
		panic(fmt.Sprintf("BUG: block: unknown codec %#x", codec))
	}
	return [headerSize]byte{version, c, compression, cipherAESGCM}
}

// compress returns the whole message with a compressed payload, made in the
// room of dst, or nil where that saves less than a sixteenth.
func compress(dst []byte, codec uint64, plain []byte) []byte {
	if len(plain) < minCompress || looksRandom(plain) {
		return nil
	}
	h := header(codec, zstdPayload)
	out := append(dst[:0], h[:]...)
	out = binary.AppendUvarint(out, uint64(len(plain)))
	out = zstdEncoder.EncodeAll(plain, out)
	if len(out) > headerSize+len(plain)-len(plain)/16 {
		return nil
	}
	return out
}

// sampleSize is how many bytes looksRandom counts at each of three places.
const sampleSize = 4 << 10

// looksRandom reports whether samples of a large plaintext use all bytes so
// evenly, as what is encrypted or compressed already does, that trying to
// compress it would be lost time. It errs on the side of trying.
func looksRandom(plain []byte) bool {
	if len(plain) < 16*sampleSize {
		return false
	}
	for _, at := range []int{0, len(plain) / 2, len(plain) - sampleSize} {
		if bitsPerByte(plain[at:at+sampleSize]) < 7.8 {
			return false
		}
	}
	return true
}

// bitsPerByte is the entropy of a sample's bytes, order 0.
func bitsPerByte(sample []byte) float64 {
	var count [256]int
	for _, b := range sample {
		count[b]++
	}
	sum := 0.0
	for _, n := range count {
		if n > 0 {
			sum += float64(n) * math.Log2(float64(n))
		}
	}
	n := float64(len(sample))
	return math.Log2(n) - sum/n
}

// parse takes a message apart; it bounds what decompression may yield.
func parse(codec uint64, msg []byte) ([]byte, error) {
	h := [headerSize]byte(msg)
	payload := msg[headerSize:]
	switch h {
	case header(codec, plainPayload):
		if len(payload) > MaxPlain {
			return nil, ErrTooLarge
		}
		return payload, nil
	case header(codec, zstdPayload):
		size, n := binary.Uvarint(payload)
		if n <= 0 || size > MaxPlain {
			return nil, ErrTooLarge
		}
		plain, err := zstdDecoder.DecodeAll(payload[n:], make([]byte, 0, size))
		if err != nil {
			return nil, err
		}
		if uint64(len(plain)) != size {
			return nil, errors.New("decompressed size differs")
		}
		return plain, nil
	}
	return nil, fmt.Errorf("unknown header %x", h)
}

// The coders are stateless for EncodeAll and DecodeAll and safe for concurrent
// use. One encoder state a core bounds their memory.
var (
	zstdEncoder = must(zstd.NewWriter(nil,
		zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithWindowSize(1<<20),
		zstd.WithEncoderCRC(false), zstd.WithLowerEncoderMem(true)))
	zstdDecoder = must(zstd.NewReader(nil,
		zstd.WithDecoderMaxMemory(MaxPlain), zstd.WithDecoderConcurrency(0),
		zstd.WithDecoderLowmem(true)))
)

func must[T any](v T, err error) T {
	if err != nil {
		panic("BUG: block: " + err.Error())
	}
	return v
}
