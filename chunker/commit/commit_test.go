package commit_test

import (
	"bytes"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"reflect"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/record"
	"skep/chunker/secret"
)

func TestParseRefuses(t *testing.T) {
	signed := func(change func(*commit.Commit)) []byte {
		c := goldenCommit()
		change(&c)
		return c.Sign(deviceKey())
	}
	newer := goldenCommit()
	newer.Version, newer.Device = 2, device()
	for what, b := range map[string][]byte{
		"version 2":          record.Sign(deviceKey(), "skep commit v1", newer),
		"65 segments":        signed(func(c *commit.Commit) { c.Segments = make([]commit.Segment, 65) }),
		"65 parents":         signed(func(c *commit.Commit) { c.Parents = make([]link.Link, 65) }),
		"less than no files": signed(func(c *commit.Commit) { c.Files = -1 }),
		"less than no bytes": signed(func(c *commit.Commit) { c.Bytes = -1 }),
	} {
		if _, err := commit.Parse(b); !errors.Is(err, commit.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	another := goldenCommit()
	another.Version, another.Device = 1, device()
	if _, err := commit.Parse(record.Sign(secret.Key{1}.Signer(), "skep commit v1", another)); !errors.Is(err, record.ErrSignature) {
		t.Errorf("signed by another device: %v", err)
	}
	if _, err := commit.Parse(make([]byte, block.MaxPlain+1)); !errors.Is(err, record.ErrFormat) {
		t.Error("larger than a block")
	}
}

// No bit of a commit can be changed.
func TestCommitIsSigned(t *testing.T) {
	b := goldenCommit().Sign(deviceKey())
	for i := range len(b) * 8 {
		bad := bytes.Clone(b)
		bad[i/8] ^= 1 << (i % 8)
		if _, err := commit.Parse(bad); err == nil {
			t.Errorf("bit %d", i)
		}
	}
}

func TestRefs(t *testing.T) {
	c := goldenCommit()
	refs, err := c.Refs()
	want := []link.Link{linkOf(link.DagPB, 1), linkOf(link.DagPB, 30), linkOf(link.CBOR, 40), linkOf(link.CBOR, 50), linkOf(link.CBOR, 60), linkOf(link.CBOR, 60), linkOf(link.CBOR, 60)}
	if err != nil || !reflect.DeepEqual(refs, want) {
		t.Errorf("%v, %v", refs, err)
	}
	c.Links, c.Segments, c.Groups = link.Link{}, nil, nil
	if refs, err = c.Refs(); err != nil || len(refs) != 1 {
		t.Errorf("without tables: %v, %v", refs, err)
	}
	c.Root = []byte{1}
	if _, err := c.Refs(); err == nil {
		t.Error("a root that is no record")
	}
}

// What a commit follows is known however many devices took turns.
func TestFollows(t *testing.T) {
	a, b, c := group.PeerKey{3}, group.PeerKey{2}, group.PeerKey{1}
	turn := func(before *commit.Commit, by group.PeerKey) *commit.Commit {
		return &commit.Commit{Device: by, Number: before.Number + 1, Follows: before.FollowedBy(by)}
	}
	root := &commit.Commit{Device: a, Number: 4}
	line := turn(turn(turn(turn(root, b), c), a), c) // b 5, c 6, a 7, c 8
	for _, x := range []struct {
		device group.PeerKey
		number uint64
		want   bool
	}{{a, 4, true}, {a, 7, true}, {a, 8, false}, {b, 5, true}, {b, 6, false}, {c, 8, true}, {c, 9, false}, {group.PeerKey{9}, 1, false}} {
		if got := line.After(x.device, x.number); got != x.want {
			t.Errorf("commit %d of %v: %v", x.number, x.device, got)
		}
	}
	if len(line.Follows) != 2 || line.Follows[0].Device != b || line.Follows[1].Device != a {
		t.Errorf("it follows %+v", line.Follows)
	}
}

// However many devices take turns, each can make a commit, and follows the last ones.
func TestFollowsManyDevices(t *testing.T) {
	c := commit.Commit{Root: rootRecord()}
	var devices []group.PeerKey
	for i := range 400 {
		key := secret.Derive(secret.Key{}, "test", binary.BigEndian.AppendUint32(nil, uint32(i))).Signer()
		next := commit.Commit{Number: uint64(i + 1), Root: rootRecord()}
		devices = append(devices, group.PeerKey(key.Public().(ed25519.PublicKey)))
		if i > 0 {
			next.Follows = c.FollowedBy(devices[i])
		}
		var err error
		if c, err = commit.Parse(next.Sign(key)); err != nil {
			t.Fatalf("device %d can make no commit: %v", i+1, err)
		}
	}
	for i, dev := range devices {
		if last := i >= 400-257; c.After(dev, uint64(i+1)) != last || c.After(dev, uint64(i+2)) {
			t.Errorf("device %d of 400 is followed: %v", i+1, !last)
		}
	}
}

func TestLocatorIn(t *testing.T) {
	holder := locatorOf(9)
	here := commit.Locator{Offset: 5, Length: 6, Link: linkOf(link.CBOR, 1)}
	got := here.In(holder)
	want := holder
	want.Offset, want.Length, want.Link = 5, 6, here.Link
	if got != want {
		t.Errorf("%+v", got)
	}
	if other := locatorOf(1); other.In(holder) != other {
		t.Error("a locator that stands alone was changed")
	}
}

func TestHeadRefuses(t *testing.T) {
	change := func(fn func(*commit.Head)) []byte {
		h := goldenHead()
		h.Version = 1
		fn(&h)
		return record.Encode(h)
	}
	for what, b := range map[string][]byte{
		"version 2":        change(func(h *commit.Head) { h.Version = 2 }),
		"pack 256":         change(func(h *commit.Head) { h.Commit.Number = group.MaxPacks }),
		"beyond its pack":  change(func(h *commit.Head) { h.Commit.Offset = 1<<20 - 4999 }),
		"offset overflows": change(func(h *commit.Head) { h.Commit.Offset = 1<<32 - 1 }),
		"longer than any":  change(func(h *commit.Head) { h.Commit.Length = block.MaxSealed + 1 }),
		"no coding":        change(func(h *commit.Head) { h.Commit.Coding = erasure.Coding{} }),
		"class 99":         change(func(h *commit.Head) { h.Commit.Class = 99 }),
	} {
		if _, err := commit.ParseHead(b); !errors.Is(err, commit.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := commit.ParseHead(make([]byte, commit.MaxHead+1)); !errors.Is(err, record.ErrFormat) {
		t.Error("larger than a head")
	}
}

// A table of any size is cut into pieces that fit a block, and comes back.
func TestGroupTable(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := uint8(rapid.IntRange(1, erasure.MaxShards).Draw(t, "n"))
		var all []group.Group
		for i := range rapid.IntRange(0, 600).Draw(t, "groups") {
			all = append(all, group.Group{ID: group.ID{byte(i), byte(i >> 8)}, Class: 26, Kind: group.Content, Coding: erasure.NewCoding(1, int(n)),
				Slots: make([]group.PeerKey, n), Packs: group.MaxPacks, Lease: 1 << 60})
		}
		var back []group.Group
		for _, p := range commit.EncodeGroups(all) {
			if len(p) > block.MaxPlain {
				t.Fatalf("a piece of %d bytes", len(p))
			}
			part, err := commit.DecodeGroups(p)
			if err != nil {
				t.Fatal(err)
			}
			back = append(back, part...)
		}
		if len(back) != len(all) || len(all) > 0 && !reflect.DeepEqual(back, all) {
			t.Fatalf("%d of %d groups came back", len(back), len(all))
		}
	})
}

func TestGroupTableRefuses(t *testing.T) {
	for what, change := range map[string]func(*group.Group){
		"no coding":    func(g *group.Group) { g.Coding = erasure.Coding{} },
		"a slot short": func(g *group.Group) { g.Slots = g.Slots[1:] },
		"257 packs":    func(g *group.Group) { g.Packs = group.MaxPacks + 1 },
		"class 1":      func(g *group.Group) { g.Class = 1 },
	} {
		g := goldenGroups()[0]
		change(&g)
		if _, err := commit.DecodeGroups(record.Encode([]group.Group{g})); !errors.Is(err, commit.ErrInvalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(goldenCommit().Sign(deviceKey()))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if c, err := commit.Parse(b); err == nil {
			_, _ = c.Refs()
		}
	})
}

func FuzzParseHead(f *testing.F) {
	f.Add(goldenHead().Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := commit.ParseHead(b)
		if err == nil && int(h.Commit.Offset)+int(h.Commit.Length) > h.Commit.Class.Size() {
			t.Fatalf("beyond its pack: %+v", h.Commit)
		}
	})
}

func FuzzDecodeGroups(f *testing.F) {
	f.Add(commit.EncodeGroups(goldenGroups())[0])
	f.Fuzz(func(_ *testing.T, b []byte) {
		all, err := commit.DecodeGroups(b)
		for _, g := range all {
			if err == nil {
				g.ShardSize() // does not divide by zero
			}
		}
	})
}
