package dag

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"skep/chunker/link"
	"skep/chunker/secret"
)

// The vectors under testdata were made once. They are what drives in use hold: a
// change of an encoding needs a new version, and never new vectors for an old one.
var makeMissing = flag.Bool("make-missing", false, "make the vectors that testdata lacks")

// goldenLink is a link whose bytes can be told apart.
func goldenLink(codec uint64, seed byte) link.Link {
	l := link.Link{Codec: codec}
	for i := range l.Hash {
		l.Hash[i], l.Key[i] = seed+byte(i), ^(seed + byte(i))
	}
	return l
}

// goldenNames is the key of the names in the vectors.
var goldenNames = secret.Key{1, 2, 3}

var goldenInodes = map[string]Inode{
	"file": {
		ID: 0x0123456789abcdef, Mode: ModeRegular | 0o644, UID: 1000, GID: 1000, Nlink: 1, Size: 5 << 20,
		Mtime: Time{1_700_000_000, 123_456_789}, Ctime: Time{1_700_000_001, 1}, Btime: Time{1_600_000_000, 999_999_999},
		Content: goldenLink(link.DagPB, 1),
	},
	"tiny":      {ID: 2, Mode: ModeRegular | 0o4755, Nlink: 1, Size: 5, Inline: []byte("tiny\n"), Mtime: Time{1, 0}},
	"old":       {ID: 3, Mode: ModeRegular | 0o600, Nlink: 1, Mtime: Time{-2_208_988_800, 5}, Ctime: Time{-1, 999_999_999}, Btime: Time{1 << 40, 0}},
	"directory": {ID: 4, Mode: ModeDirectory | 0o1777, Nlink: 7, Size: 4096, Content: goldenLink(link.DagPB, 9)},
	"symlink":   {ID: 5, Mode: ModeSymlink | 0o777, Nlink: 1, Size: 9, Inline: []byte("../target")},
	"device":    {ID: 6, Mode: ModeBlock | 0o660, Nlink: 1, Rdev: 0x0801, GID: 6},
	"linked":    {ID: 7, Mode: ModeRegular, Linked: true},
	"xattrs": {
		ID: 8, Mode: ModeRegular, Nlink: 1, Size: 1, Content: goldenLink(link.Raw, 3),
		Xattrs: map[string][]byte{"user.\xff": []byte("bytes"), "user.empty": {}, "security.capability": {1, 0, 0, 2}},
	},
}

func goldenEntries() []entry {
	entries := []entry{{name: newNamer(goldenNames).stored("large"), cid: cidOf(goldenLink(link.CBOR, 40)), tsize: 2000}}
	for name, n := range goldenInodes {
		entries = append(entries, entry{name: newNamer(goldenNames).stored(name), cid: recordCID(n.encode())})
	}
	return mergeEntries(entries, nil)
}

func goldenSlots() []slot {
	slots := []slot{{index: 0, shard: goldenLink(link.DagPB, 50), entry: entry{tsize: 3000}}}
	for i := 1; i < hamtWidth; i++ {
		for _, e := range goldenEntries() {
			if int(slotAt(murmur(e.name), 0)) == i {
				slots = append(slots, slot{index: uint8(i), entry: e})
				break
			}
		}
	}
	return slots
}

func goldenVectors() map[string][]byte {
	v := map[string][]byte{}
	for name, n := range goldenInodes {
		v["inode-"+name] = n.encode()
	}
	dir, hamt := dirNode(goldenEntries()), shardNode(goldenSlots())
	v["dir"], v["hamt"] = dir.encode(), hamt.encode()
	_, v["file-node"] = fuzzFile(3, 5)
	_, v["file-node-uneven"] = fuzzFile(2*174+1, ChunkSize)
	v["empty-name-key"] = []byte(newNamer(secret.Key{}).stored("name"))
	return v
}

func TestGolden(t *testing.T) {
	for name, got := range goldenVectors() {
		path := filepath.Join("testdata", name+".hex")
		text, err := os.ReadFile(path)
		if os.IsNotExist(err) && *makeMissing {
			if err := os.WriteFile(path, []byte(hex.EncodeToString(got)+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		want, err := hex.DecodeString(string(bytes.TrimSpace(text)))
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: the encoding has changed\n got %x\nwant %x", name, got, want)
		}
	}
}

// TestGoldenDecodes reads the vectors back.
func TestGoldenDecodes(t *testing.T) {
	v := goldenVectors()
	for name, want := range goldenInodes {
		if got, err := DecodeInode(v["inode-"+name]); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	for _, name := range []string{"dir", "hamt"} {
		if _, err := decodeDir(v[name]); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
