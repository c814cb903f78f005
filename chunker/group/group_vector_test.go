package group_test

import (
	"crypto/ed25519"
	"reflect"
	"testing"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/record"
	"skep/chunker/secret"
	"skep/test/vectors"
)

var (
	vectorRoot  = secret.Key{0: 5, 31: 6}
	vectorNonce = [16]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
)

func groupKey() ed25519.PrivateKey  { return group.KeyOf(vectorRoot, vectorNonce) }
func holderKey() ed25519.PrivateKey { return secret.Key{0: 7}.Signer() }

func peer(b byte) (k group.PeerKey) {
	for i := range k {
		k[i] = b
	}
	return k
}

func goldenManifest() group.Manifest {
	m := group.Manifest{Number: 255, Class: 20, Coding: erasure.NewCoding(4, 7)}
	for i := range 7 {
		m.Roots = append(m.Roots, erasure.Root{0: byte(i), 31: 0xee})
	}
	return m
}

func goldenLease() group.Lease {
	l := group.Lease{Number: 1 << 33, Until: 2_000_000_000, Packs: 200, Bytes: 52_428_800}
	l.Dead.Add(0)
	l.Dead.Add(9)
	l.Dead.Add(199)
	return l
}

func goldenStatement() group.Statement {
	s := group.Statement{Group: group.IDOf(groupKey()), Slot: 6, Lease: 1 << 33, Time: 1_800_000_000}
	s.Held.Add(1)
	s.Held.Add(255)
	return s
}

func goldenRelease() group.Release {
	r := group.Release{Holder: peer(2), Number: 1 << 33}
	r.Packs.Add(1)
	r.Packs.Add(255)
	return r
}

func goldenSlotRecord() group.SlotRecord {
	return group.SlotRecord{Number: 42, Until: 2_000_000_000, Value: []byte("a sealed value")}
}

func goldenGroup() group.Group {
	g := group.Group{
		ID: group.IDOf(groupKey()), Nonce: vectorNonce, Founder: peer(1), Class: 24, Kind: group.Metadata, Coding: erasure.NewCoding(2, 3),
		Slots: []group.PeerKey{peer(2), {}, peer(3)}, Packs: 17, Lease: 9, Until: 2_000_000_000,
	}
	g.Dead.Add(16)
	g.Former = []group.Former{{Holder: peer(4), Slot: 2}}
	return g
}

func TestVectors(t *testing.T) {
	id := group.IDOf(groupKey())
	blinded := id.Blinded()
	slot := group.SlotKeyOf(holderKey().Public().(ed25519.PublicKey))
	vectors.Check(t, "names", "group id for a root secret and a nonce; its blinded form; a slot key", append(append(id[:], blinded[:]...), slot[:]...))

	for _, c := range []struct {
		name, about string
		word        []byte
		parse       func([]byte) (any, error)
		want        any
	}{
		{"manifest", "signed manifest of pack 255, class 20, 4 of 7", goldenManifest().Sign(groupKey()),
			func(b []byte) (any, error) { return group.ParseManifest(b) }, signed(goldenManifest(), func(m *group.Manifest) { m.Version, m.Group = 1, id })},
		{"lease", "signed lease with three dead packs", goldenLease().Sign(groupKey()),
			func(b []byte) (any, error) { return group.ParseLease(b) }, signed(goldenLease(), func(l *group.Lease) { l.Version, l.Group = 1, id })},
		{"statement", "signed statement on two packs in slot 6", goldenStatement().Sign(holderKey()),
			func(b []byte) (any, error) { return group.ParseStatement(b) }, signed(goldenStatement(), func(s *group.Statement) {
				s.Version, s.Holder = 1, group.PeerKey(holderKey().Public().(ed25519.PublicKey))
			})},
		{"release", "signed release of one holder", goldenRelease().Sign(groupKey()),
			func(b []byte) (any, error) { return group.ParseRelease(b) }, signed(goldenRelease(), func(r *group.Release) { r.Version, r.Group = 1, id })},
		{"slot", "signed slot record", goldenSlotRecord().Sign(holderKey()),
			func(b []byte) (any, error) { return group.ParseSlotRecord(b) }, signed(goldenSlotRecord(), func(r *group.SlotRecord) {
				r.Version, r.Pub = 1, [32]byte(holderKey().Public().(ed25519.PublicKey))
			})},
		{"group", "entry of the group table", record.Encode(goldenGroup()),
			func(b []byte) (any, error) { var g group.Group; err := record.Decode(b, len(b), &g); return g, err }, goldenGroup()},
	} {
		vectors.Check(t, c.name, c.about, c.word)
		if got, err := c.parse(c.word); err != nil || !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// signed is a word with what signing fills in.
func signed[T any](word T, fill func(*T)) T {
	fill(&word)
	return word
}
