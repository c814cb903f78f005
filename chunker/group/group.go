package group

import (
	"crypto/ed25519"
	"encoding/hex"
	"errors"
	"fmt"
	"math/bits"

	"github.com/zeebo/blake3"

	"skep/chunker/erasure"
	"skep/chunker/record"
	"skep/chunker/secret"
)

// MaxPacks is how many packs a group can have.
const MaxPacks = 256

// Limits of the encoded words, in bytes: larger ones are refused unread.
const (
	MaxManifest  = 8 << 10
	MaxLease     = 1 << 10
	MaxStatement = 1 << 10
)

const version = 1

// ErrInvalid says that a word is well formed and signed but says what cannot
// be, such as a coding that its class does not allow.
var ErrInvalid = errors.New("invalid statement")

// ID is a group's Ed25519 public key.
type ID [ed25519.PublicKeySize]byte

// String is the id in hexadecimal, as directories of holders are named.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Blinded is the name under which holders announce the group in the DHT: who
// does not know the id learns nothing from it, not even that two names belong
// to one owner.
func (id ID) Blinded() [32]byte {
	var out [32]byte
	blake3.DeriveKey("skep 2026 blinded group id v1", id[:], out[:])
	return out
}

// PeerKey is a peer's Ed25519 public key, its identity in the swarm. The zero
// key is no peer.
type PeerKey [ed25519.PublicKeySize]byte

// IsZero reports whether k is no peer.
func (k PeerKey) IsZero() bool { return k == PeerKey{} }

// String is the start of the key in hexadecimal.
func (k PeerKey) String() string { return hex.EncodeToString(k[:6]) }

// Bitmap is a set of pack numbers.
type Bitmap [MaxPacks / 8]byte

// AllPacks is the set of all numbers that a pack of a group can have.
var AllPacks = func() (b Bitmap) {
	for i := range b {
		b[i] = 0xff
	}
	return b
}()

// Has reports whether pack n is in the set.
func (b *Bitmap) Has(n uint16) bool { return n < MaxPacks && b[n/8]&(1<<(n%8)) != 0 }

// Add puts pack n into the set.
func (b *Bitmap) Add(n uint16) { b[n/8] |= 1 << (n % 8) }

// Remove takes pack n out of the set.
func (b *Bitmap) Remove(n uint16) { b[n/8] &^= 1 << (n % 8) }

// Union adds all of o.
func (b *Bitmap) Union(o Bitmap) {
	for i := range b {
		b[i] |= o[i]
	}
}

// Count is the number of packs in the set.
func (b *Bitmap) Count() (n int) {
	for _, x := range b {
		n += bits.OnesCount8(x)
	}
	return n
}

// Contains reports whether all of o is in b.
func (b *Bitmap) Contains(o Bitmap) bool {
	for i := range b {
		if o[i]&^b[i] != 0 {
			return false
		}
	}
	return true
}

// Without returns b less all of o.
func (b Bitmap) Without(o Bitmap) Bitmap {
	for i := range b {
		b[i] &^= o[i]
	}
	return b
}

// Within returns what is in b and in o.
func (b Bitmap) Within(o Bitmap) Bitmap {
	for i := range b {
		b[i] &= o[i]
	}
	return b
}

// SlotSet is a set of slots.
type SlotSet [erasure.MaxShards / 8]byte

// Has reports whether slot i is in the set.
func (s *SlotSet) Has(i int) bool { return s[i/8]&(1<<(i%8)) != 0 }

// Add puts slot i into the set.
func (s *SlotSet) Add(i int) { s[i/8] |= 1 << (i % 8) }

// Remove takes slot i out of the set.
func (s *SlotSet) Remove(i int) { s[i/8] &^= 1 << (i % 8) }

// Count is the number of slots in the set.
func (s *SlotSet) Count() (n int) {
	for _, x := range s {
		n += bits.OnesCount8(x)
	}
	return n
}

// PackRef names a pack and tells what is known of finding it.
type PackRef struct {
	Group    ID
	Number   uint16
	Class    erasure.Class
	Coding   erasure.Coding
	Slots    []PeerKey // nil: the holders must be found
	Manifest []byte    // nil: the holders must be asked
}

// Kind says what the packs of a group hold. It is the owner's own knowledge
// and in no public word.
type Kind uint8

// The kinds of packs.
const (
	Content  Kind = 1
	Metadata Kind = 2
)

// Group is the owner's account of one group, as it stands in the drive's
// group table.
type Group struct {
	_       struct{} `cbor:",toarray"`
	ID      ID
	Nonce   [16]byte // with the owner's root secret, gives the group's key
	Founder PeerKey  // the device that founded the group: it alone appends
	Class   erasure.Class
	Kind    Kind
	Coding  erasure.Coding
	Slots   []PeerKey // slot i holds shard i; the zero key is an empty slot
	Packs   uint16    // packs 0 … Packs-1 were begun
	Dead    Bitmap
	Lease   uint64   // number of the newest lease
	Until   int64    // end of that lease, Unix seconds
	Former  []Former // who may still hold shards of a slot that is not theirs
}

// KeyOf derives the private key of the group with this nonce from the root
// secret of the member who founded it.
func KeyOf(root secret.Key, nonce [16]byte) ed25519.PrivateKey {
	return secret.Derive(root, "skep group key v1", nonce[:]).Signer()
}

// IDOf is the public half of a group's key.
func IDOf(key ed25519.PrivateKey) ID { return ID(key.Public().(ed25519.PublicKey)) }

// ShardSize is the size of each shard of the group.
func (g *Group) ShardSize() int { return g.Coding.ShardSize(g.Class) }

// Manifest describes one pack.
type Manifest struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Group   ID
	Number  uint16
	Class   erasure.Class
	Coding  erasure.Coding
	Roots   []erasure.Root // of shards 0 … n-1
}

const (
	manifestContext  = "skep manifest v1"
	leaseContext     = "skep lease v1"
	statementContext = "skep statement v1"
)

// Sign returns the signed manifest. key must be the group's.
func (m Manifest) Sign(key ed25519.PrivateKey) []byte {
	m.Version, m.Group = version, IDOf(key)
	return record.Sign(key, manifestContext, m)
}

// ShardSize is the size of each shard of the pack.
func (m *Manifest) ShardSize() int { return m.Coding.ShardSize(m.Class) }

// ParseManifest decodes a manifest and checks it against the key of its group.
func ParseManifest(b []byte) (Manifest, error) {
	var m Manifest
	s, err := record.Parse(b, MaxManifest, &m)
	if err != nil {
		return Manifest{}, fmt.Errorf("manifest: %w", err)
	}
	if m.Version != version || m.Number >= MaxPacks || !m.Coding.Valid(m.Class) || len(m.Roots) != int(m.Coding.N) {
		return Manifest{}, fmt.Errorf("manifest of pack %d: %w", m.Number, ErrInvalid)
	}
	if err := s.Verify(m.Group[:], manifestContext); err != nil {
		return Manifest{}, err
	}
	return m, nil
}

// Lease says what of a group is wanted, and for how long. Leases of one group
// are numbered; the highest counts, but the group is wanted until the latest end
// of any of them, and a pack that any of them calls dead stays dead. So no clock
// of the owner's that was wrong for a while makes a holder delete anything.
type Lease struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Group   ID
	Number  uint64
	Until   int64  // Unix seconds
	Packs   uint16 // packs 0 … Packs-1 may be stored
	Bytes   int64  // budget of one slot
	Dead    Bitmap
}

// Sign returns the signed lease. key must be the group's.
func (l Lease) Sign(key ed25519.PrivateKey) []byte {
	l.Version, l.Group = version, IDOf(key)
	return record.Sign(key, leaseContext, l)
}

// ParseLease decodes a lease and checks it against the key of its group.
func ParseLease(b []byte) (Lease, error) {
	var l Lease
	s, err := record.Parse(b, MaxLease, &l)
	if err != nil {
		return Lease{}, fmt.Errorf("lease: %w", err)
	}
	if l.Version != version || l.Packs > MaxPacks || l.Bytes < 0 || l.Until < 0 {
		return Lease{}, fmt.Errorf("lease: %w", ErrInvalid)
	}
	if err := s.Verify(l.Group[:], leaseContext); err != nil {
		return Lease{}, err
	}
	return l, nil
}

// Statement is a holder's word on what it holds of a group.
type Statement struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Holder  PeerKey
	Group   ID
	Slot    uint8
	Held    Bitmap
	Lease   uint64 // number of the newest lease that the holder has seen
	Time    int64  // Unix seconds
}

// Sign returns the signed statement. key must be the holder's.
func (s Statement) Sign(key ed25519.PrivateKey) []byte {
	s.Version, s.Holder = version, PeerKey(key.Public().(ed25519.PublicKey))
	return record.Sign(key, statementContext, s)
}

// ParseStatement decodes a statement and checks it against its holder's key.
func ParseStatement(b []byte) (Statement, error) {
	var st Statement
	s, err := record.Parse(b, MaxStatement, &st)
	if err != nil {
		return Statement{}, fmt.Errorf("statement: %w", err)
	}
	if st.Version != version || st.Slot >= erasure.MaxShards {
		return Statement{}, fmt.Errorf("statement: %w", ErrInvalid)
	}
	if err := s.Verify(st.Holder[:], statementContext); err != nil {
		return Statement{}, err
	}
	return st, nil
}
