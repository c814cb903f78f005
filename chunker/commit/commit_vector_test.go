package commit_test

import (
	"crypto/ed25519"
	"reflect"
	"testing"

	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
	"skep/test/vectors"
)

func deviceKey() ed25519.PrivateKey { return secret.Key{0: 8}.Signer() }

func device() group.PeerKey { return group.PeerKey(deviceKey().Public().(ed25519.PublicKey)) }

// linkOf is a link whose bytes can be told apart.
func linkOf(codec uint64, seed byte) link.Link {
	l := link.Link{Codec: codec}
	for i := range l.Hash {
		l.Hash[i], l.Key[i] = seed+byte(i), ^(seed + byte(i))
	}
	return l
}

func locatorOf(seed byte) commit.Locator {
	return commit.Locator{
		Group: group.ID{0: seed}, Number: 3, Class: 20, Coding: erasure.NewCoding(4, 7),
		Offset: 1 << 16, Length: 5000, Link: linkOf(link.CBOR, seed),
	}
}

// rootRecord is the inode record of a root directory.
func rootRecord() []byte {
	root := dag.Inode{ID: 1, Mode: dag.ModeDirectory | 0o755, Nlink: 2, Size: 4096, Content: linkOf(link.DagPB, 1)}
	b, err := root.Encode()
	if err != nil {
		panic(err)
	}
	return b
}

func goldenCommit() commit.Commit {
	here := locatorOf(60)
	here.Group, here.Number, here.Class, here.Coding = group.ID{}, 0, 0, erasure.Coding{}
	return commit.Commit{
		Drive: [16]byte{1, 2, 3}, Epoch: 2, Number: 77, Time: 1_800_000_000,
		Parents: []link.Link{linkOf(link.CBOR, 20)}, Follows: []commit.Followed{{Device: group.PeerKey{5}, Number: 70}}, Root: rootRecord(), Links: linkOf(link.DagPB, 30),
		Segments: []commit.Segment{
			{Count: 4097, Pieces: []commit.Piece{{First: link.Hash{1}, At: locatorOf(40)}, {First: link.Hash{200}, At: locatorOf(50)}}},
			{Count: 2, Pieces: []commit.Piece{{First: link.Hash{9}, At: here}}},
			{Count: 1 << 30, Lists: true, Pieces: []commit.Piece{{First: link.Hash{10}, At: here}}},
		},
		Groups: []commit.Locator{here}, Files: 1234, Bytes: 5 << 40,
	}
}

func goldenHead() commit.Head {
	return commit.Head{Drive: [16]byte{1, 2, 3}, Device: device(), Number: 77, Time: 1_800_000_000, Commit: locatorOf(70)}
}

func goldenGroups() []group.Group {
	g := group.Group{
		ID: group.ID{1}, Nonce: [16]byte{2}, Founder: device(), Class: 16, Kind: group.Content, Coding: erasure.NewCoding(1, 2),
		Slots: []group.PeerKey{{3}, {4}}, Packs: 1, Lease: 1, Until: 2_000_000_000,
	}
	h := g
	h.ID, h.Kind, h.Packs = group.ID{9}, group.Metadata, group.MaxPacks
	h.Dead.Add(255)
	return []group.Group{g, h}
}

func TestVectors(t *testing.T) {
	signed := goldenCommit().Sign(deviceKey())
	vectors.Check(t, "commit", "signed commit with three segments and one piece of the group table", signed)
	want := goldenCommit()
	want.Version, want.Device = 1, device()
	if got, err := commit.Parse(signed); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v, %v", got, err)
	}

	pieces := []commit.Piece{{First: link.Hash{1}, At: locatorOf(40)}, {First: link.Hash{200}, At: locatorOf(50)}}
	list := commit.EncodePieces(pieces)
	vectors.Check(t, "pieces", "a list of two pieces of a segment", list)
	if got, err := commit.DecodePieces(list); err != nil || !reflect.DeepEqual(got, pieces) {
		t.Errorf("%+v, %v", got, err)
	}

	head := goldenHead().Encode()
	vectors.Check(t, "head", "head that names commit 77", head)
	first := goldenHead()
	first.Version = 1
	if got, err := commit.ParseHead(head); err != nil || got != first {
		t.Errorf("%+v, %v", got, err)
	}

	table := commit.EncodeGroups(goldenGroups())
	if len(table) != 1 {
		t.Fatalf("%d pieces", len(table))
	}
	vectors.Check(t, "groups", "group table of two groups", table[0])
	if got, err := commit.DecodeGroups(table[0]); err != nil || !reflect.DeepEqual(got, goldenGroups()) {
		t.Errorf("%+v, %v", got, err)
	}
}
