package erasure

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"

	"github.com/klauspost/reedsolomon"
)

// Class is a size class of packs: the binary logarithm of the size in bytes.
type Class uint8

// The smallest and the largest class: 64 KiB and 64 MiB.
const (
	MinClass Class = 16
	MaxClass Class = 26
)

// MinShard is the smallest shard, in bytes.
const MinShard = 64 << 10

// MaxShards is the largest n.
const MaxShards = 128

// Size is the size of a pack of this class, in bytes.
func (c Class) Size() int { return 1 << c }

// Valid reports whether c is between MinClass and MaxClass.
func (c Class) Valid() bool { return c >= MinClass && c <= MaxClass }

// String is the size in words people use, such as "4 MiB".
func (c Class) String() string {
	if c < 20 {
		return fmt.Sprintf("%d KiB", c.Size()>>10)
	}
	return fmt.Sprintf("%d MiB", c.Size()>>20)
}

// ClassFor returns the smallest class that holds size bytes.
func ClassFor(size int) (Class, bool) {
	c := max(MinClass, Class(bits.Len(uint(max(size, 1)-1))))
	return c, c <= MaxClass
}

// MaxK is the largest k of a class: shards are not smaller than MinShard.
func (c Class) MaxK() int { return c.Size() / MinShard }

// Kind is the code by which parity is made. It is part of the manifest: the
// kinds give different parity.
type Kind uint8

// The kinds of code. Classic is the faster one up to some twenty shards,
// Leopard for more.
const (
	Classic Kind = 1 // Reed-Solomon over GF(2⁸), Vandermonde matrix
	Leopard Kind = 2 // Reed-Solomon by FFT over GF(2⁸) (Lin, Han, Chung 2016)
)

// Coding says how packs of a group are coded. It is comparable.
type Coding struct {
	_    struct{} `cbor:",toarray"`
	Kind Kind
	K, N uint8
}

// NewCoding returns the coding for k of n, of the kind that is faster there.
func NewCoding(k, n int) Coding {
	kind := Classic
	if n > 32 {
		kind = Leopard
	}
	return Coding{Kind: kind, K: uint8(k), N: uint8(n)}
}

// Left is how a pack in this coding is coded, in effect, of which so many shards are
// left: k of k, once it survives the loss of none of them.
func (c Coding) Left(shards int) Coding {
	if shards > int(c.K) {
		return c
	}
	return NewCoding(int(c.K), int(c.K))
}

// Valid reports whether c can code a pack of the class.
func (c Coding) Valid(class Class) bool {
	return class.Valid() && (c.Kind == Classic || c.Kind == Leopard) &&
		c.K >= 1 && c.N >= c.K && int(c.N) <= MaxShards && int(c.K) <= class.MaxK()
}

// String is such as "4 of 7".
func (c Coding) String() string { return fmt.Sprintf("%d of %d", c.K, c.N) }

// ShardSize is the size of each shard of a pack of the class: an equal share,
// rounded up to a multiple of 64 bytes. The last data shard is padded with
// zeros where k does not divide the pack.
func (c Coding) ShardSize(class Class) int {
	k := int(c.K)
	return (((class.Size() + k - 1) / k) + 63) &^ 63
}

// ErrTooFew says that fewer than k shards are there.
var ErrTooFew = errors.New("too few shards")

// Split cuts a pack into its n shards: the first k are views of pack where
// they lie whole within it, the others are cut from room and undefined until
// Encode. len(pack) must be the class's size. A room that is smaller than Room
// says is passed over, and memory allocated.
func (c Coding) Split(class Class, pack, room []byte) [][]byte {
	if need := c.Room(class); len(room) < need {
		room = make([]byte, need)
	}
	size := c.ShardSize(class)
	shards := make([][]byte, c.N)
	for i := range shards {
		lo := i * size
		if i < int(c.K) && lo+size <= len(pack) {
			shards[i] = pack[lo : lo+size : lo+size]
			continue
		}
		shards[i], room = room[:size:size], room[size:]
		if i < int(c.K) {
			clear(shards[i][copy(shards[i], pack[min(lo, len(pack)):]):])
		}
	}
	return shards
}

// Room is how many bytes the shards take that are no views of their pack.
func (c Coding) Room(class Class) int {
	size := c.ShardSize(class)
	return size * (int(c.N) - class.Size()/size)
}

// Encode fills the parity shards from the data shards. All n must be there and
// of one size, a multiple of 64.
func (c Coding) Encode(shards [][]byte) error {
	if c.K == c.N {
		return nil
	}
	if c.K == 1 { // a replica is its own parity
		for _, s := range shards[1:] {
			copy(s, shards[0])
		}
		return nil
	}
	enc, err := encoder(c)
	if err != nil {
		return err
	}
	return enc.Encode(shards)
}

// Reconstruct rebuilds the missing shards, those of length 0, that want names.
// The others, or equal ranges of them, must be of one size that is a multiple
// of 64. It detects no error: the caller has checked each shard against its
// root, and checks the result.
func (c Coding) Reconstruct(shards [][]byte, want []bool) error {
	have, size := 0, 0
	for _, s := range shards {
		if len(s) > 0 {
			have, size = have+1, len(s)
		}
	}
	if have < int(c.K) {
		return fmt.Errorf("%w: %d of the %d needed", ErrTooFew, have, c.K)
	}
	if c.K == 1 {
		return replicate(shards, want, size)
	}
	if c.K == c.N {
		return nil // nothing can be missing
	}
	enc, err := encoder(c)
	if err != nil {
		return err
	}
	return enc.ReconstructSome(shards, want)
}

func replicate(shards [][]byte, want []bool, size int) error {
	var src []byte
	for _, s := range shards {
		if len(s) > 0 {
			src = s
			break
		}
	}
	for i := range shards {
		if len(shards[i]) == 0 && want[i] {
			shards[i] = append(make([]byte, 0, size), src...)
		}
	}
	return nil
}

// encoders keeps one encoder for each coding in use: they are few, and the
// matrices are costly to make. Encoders are safe for concurrent use.
var encoders sync.Map // Coding → reedsolomon.Encoder

func encoder(c Coding) (reedsolomon.Encoder, error) {
	if e, ok := encoders.Load(c); ok {
		return e.(reedsolomon.Encoder), nil
	}
	// A leaf of each shard is coded at once: to divide that among goroutines, as
	// the library does from some KiB on, costs more than it gains.
	opts := []reedsolomon.Option{reedsolomon.WithMinSplitSize(2 * leafSize)}
	if c.Kind == Leopard {
		opts = append(opts, reedsolomon.WithLeopardGF(true))
	} else {
		opts = append(opts, reedsolomon.WithInversionCache(false))
	}
	e, err := reedsolomon.New(int(c.K), int(c.N-c.K), opts...)
	if err != nil {
		return nil, fmt.Errorf("coding %v: %w", c, err)
	}
	encoders.Store(c, e)
	return e, nil
}

// EncodeRoots is Encode and returns the root of each shard. It goes through the
// shards a leaf of each at a time, which are still in the processor's cache when
// they are hashed; one after the other would bring all from memory twice.
func (c Coding) EncodeRoots(shards [][]byte) ([]Root, error) {
	size := len(shards[0])
	trees := make([]*Tree, len(shards))
	for i := range trees {
		trees[i] = NewTree(size)
	}
	part := make([][]byte, len(shards))
	for at := 0; at < size; at += leafSize {
		for i, s := range shards {
			part[i] = s[at:min(at+leafSize, size)]
		}
		if err := c.Encode(part); err != nil {
			return nil, err
		}
		for i, p := range part {
			if _, err := trees[i].Write(p); err != nil {
				return nil, err
			}
		}
	}
	roots := make([]Root, len(shards))
	for i, t := range trees {
		var err error
		if _, roots[i], err = t.Sum(); err != nil {
			return nil, err
		}
	}
	return roots, nil
}
