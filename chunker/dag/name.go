package dag

import (
	"cmp"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/spaolacci/murmur3"
	"github.com/zeebo/blake3"

	"skep/chunker/secret"
)

// MaxName is the longest name of an entry, in bytes.
const MaxName = 255

// A HAMT places an entry by the murmur3 hash of its name, which anybody can make
// collide. The stored name is therefore the real one behind a prefix that depends
// on it and on a secret: whoever does not know the secret cannot choose where an
// entry lands. Plain directories use the same stored names, so that an entry is
// the same in both.

const (
	prefixBytes = 8  // of the keyed hash
	prefixLen   = 11 // in base64url
)

// checkName reports whether name can be that of an entry.
func checkName(name string) error {
	if len(name) == 0 || len(name) > MaxName {
		return fmt.Errorf("%w: %d bytes", ErrName, len(name))
	}
	if name == "." || name == ".." || strings.ContainsAny(name, "/\x00") {
		return fmt.Errorf("%w: %q", ErrName, name)
	}
	return nil
}

// namer makes stored names under one key.
type namer struct{ h *blake3.Hasher }

func newNamer(key secret.Key) namer {
	h, err := blake3.NewKeyed(key[:])
	if err != nil {
		panic("BUG: dag: " + err.Error()) // the key size is right by type
	}
	return namer{h}
}

// stored returns the stored name of a valid name.
func (n namer) stored(name string) string {
	n.h.Reset()
	_, _ = n.h.WriteString(name)
	var sum [32]byte
	n.h.Sum(sum[:0])
	b := make([]byte, prefixLen, prefixLen+len(name))
	base64.RawURLEncoding.Encode(b, sum[:prefixBytes])
	return string(append(b, name...))
}

// realName strips the prefix of a stored name. The prefix is checked for its form
// alone: that it fits the name can be told by those who have the key.
func realName(stored string) (string, error) {
	if len(stored) <= prefixLen {
		return "", corrupt("entry has a stored name of %d bytes", len(stored))
	}
	var b [prefixBytes]byte
	n, err := base64.RawURLEncoding.Strict().Decode(b[:], []byte(stored[:prefixLen]))
	if err != nil || n != prefixBytes { // line breaks are skipped, and leave less
		return "", corrupt("entry has a malformed prefix")
	}
	name := stored[prefixLen:]
	if err := checkName(name); err != nil {
		return "", fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return name, nil
}

// murmur is the hash by which UnixFS places a stored name. Its first byte is the
// slot in the root shard, its second that in the shard below, and so on.
func murmur(stored string) uint64 { return murmur3.Sum64([]byte(stored)) }

// maxDepth is the number of levels of shards that the hash can tell apart.
const maxDepth = 8

// slotAt is the slot of a hash in a shard of this depth; the root has depth 0.
func slotAt(hash uint64, depth int) uint8 { return uint8(hash >> (56 - 8*depth)) }

// InodeName is the name of an inode's record in the drive's table of inodes with
// several hard links: its id in 16 hexadecimal digits.
func InodeName(id uint64) string {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], id)
	return fmt.Sprintf("%x", b)
}

// Arrange orders names of entries so that those whose records lie in the same
// nodes of a directory come together: who edits a large directory in parts, in
// this order, writes hardly a node twice.
func Arrange(key secret.Key, names []string) {
	type placed struct {
		hash uint64
		name string
	}
	n := newNamer(key)
	all := make([]placed, len(names))
	for i, name := range names {
		all[i] = placed{murmur(n.stored(name)), name}
	}
	slices.SortFunc(all, func(a, b placed) int {
		return cmp.Or(cmp.Compare(a.hash, b.hash), strings.Compare(a.name, b.name))
	})
	for i := range all {
		names[i] = all[i].name
	}
}
