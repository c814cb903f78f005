package storetest

import (
	"crypto/ed25519"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
)

// Bytes returns n bytes that follow from a seed.
func Bytes(seed uint64, n int) []byte {
	b := make([]byte, n)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	c := rand.NewChaCha8(key)
	_, _ = c.Read(b)
	return b
}

// Key returns the Ed25519 key that follows from a seed.
func Key(seed uint64) ed25519.PrivateKey {
	return secret.Key(Bytes(seed, secret.Size)).Signer()
}

// An Owner is one group with its key: what a test needs to bring leases and
// packs.
type Owner struct {
	Key    ed25519.PrivateKey
	ID     group.ID
	Class  erasure.Class
	Coding erasure.Coding
	seed   uint64
}

// NewOwner returns the group that follows from a seed.
func NewOwner(seed uint64, class erasure.Class, k, n int) *Owner {
	key := Key(seed)
	return &Owner{Key: key, ID: group.IDOf(key), Class: class, Coding: erasure.NewCoding(k, n), seed: seed}
}

// Lease returns a lease until a time in Unix seconds, for all packs and a
// budget of a GiB, but for what changes.
func (o *Owner) Lease(number uint64, until int64, changes ...func(*group.Lease)) (group.Lease, []byte) {
	l := group.Lease{Number: number, Until: until, Packs: group.MaxPacks, Bytes: 1 << 30}
	for _, change := range changes {
		change(&l)
	}
	word := l.Sign(o.Key)
	l, err := group.ParseLease(word)
	if err != nil {
		panic("BUG: storetest: " + err.Error())
	}
	return l, word
}

// Dead is a change of a lease that calls packs dead.
func Dead(packs ...uint16) func(*group.Lease) {
	return func(l *group.Lease) {
		for _, p := range packs {
			l.Dead.Add(p)
		}
	}
}

// A Pack is one pack with its shards.
type Pack struct {
	Manifest group.Manifest
	Word     []byte // signed
	Shards   [][]byte
}

// Pack returns the pack of this number.
func (o *Owner) Pack(t testing.TB, number uint16) Pack {
	t.Helper()
	p, err := o.MakePack(number)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// MakePack is Pack outside of a test.
func (o *Owner) MakePack(number uint16) (Pack, error) {
	shards := o.Coding.Split(o.Class, Bytes(o.seed<<16|uint64(number), o.Class.Size()), nil)
	if err := o.Coding.Encode(shards); err != nil {
		return Pack{}, err
	}
	m := group.Manifest{Number: number, Class: o.Class, Coding: o.Coding}
	for _, s := range shards {
		m.Roots = append(m.Roots, erasure.RootOf(s))
	}
	word := m.Sign(o.Key)
	m, err := group.ParseManifest(word)
	return Pack{Manifest: m, Word: word, Shards: shards}, err
}

// Record returns a signed slot record under the key that follows from a seed.
func Record(seed, number uint64, until int64, size int) (group.SlotRecord, []byte) {
	word := group.SlotRecord{Number: number, Until: until, Value: Bytes(seed+number, size)}.Sign(Key(seed))
	r, err := group.ParseSlotRecord(word)
	if err != nil {
		panic("BUG: storetest: " + err.Error())
	}
	return r, word
}
