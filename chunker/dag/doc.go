// Package dag represents files and directories as UnixFS over sealed blocks.
//
// # The model
//
// A file's content is cut into chunks of ChunkSize. Each chunk is a raw block;
// a tree of UnixFS nodes of up to 174 links above them makes them one file, in
// the balanced layout of the stock builder of go-unixfsnode. A directory is a
// UnixFS directory in one node while it is small, and a UnixFS HAMT when it is
// large. The nodes are plain DAG-PB; what differs from a public UnixFS DAG is
// that each link is a sealed link (package link: hash of the ciphertext and key),
// so that whoever has a root can read what hangs below it, and nobody else can.
//
// What an entry of a directory names is described by an inode record (Inode). A
// small record lies in the directory itself, as the digest of an identity CID:
// listing a directory with all its attributes costs the directory's own blocks
// only. A large record is a block of its own.
//
// # Reading and writing
//
// The package is pure: blocks come from a Getter and go to a Putter. Everything
// written is a new, immutable block; nothing is ever altered. Edits work along
// paths: WriteFile and EditDir read and write only the nodes between the root
// and what changes, and take over every other link as it is. The result has no
// memory of how it came about: a file has the very root that building it afresh
// would give, and so does a sharded directory.
//
// LinkSystem lets the readers and builders of go-unixfsnode work on the same
// sealed blocks. CheckDir and CheckFile read with both readers, so that what ours
// gets wrong in the same way as our writer is found.
//
// # Hostile bytes
//
// A block that a Getter returns is authentic, but whoever wrote it may have been
// broken or hostile. Every decoder accepts the one canonical form only, checks
// counts, sizes and names against what its parent claims, and returns ErrCorrupt
// for anything else. Each step down a file makes the expected number of chunks
// smaller, and each step down a HAMT uses up a byte of the hash, so that no
// chain of links is endless.
//
// The format is in docs/dag.md and pinned by the vectors under testdata.
package dag

import (
	"context"
	"errors"
	"fmt"

	"skep/chunker/link"
)

var (
	// ErrCorrupt says that a block is not what its parent or its codec
	// promises.
	ErrCorrupt = errors.New("file tree is corrupt")
	// ErrVersion says that an inode record was written by a later version.
	ErrVersion = errors.New("inode record has an unknown version")
	// ErrName says that a name cannot be an entry of a directory.
	ErrName = errors.New("not a name of a directory entry")
	// ErrInode says that an Inode to be written contradicts itself or exceeds
	// a limit.
	ErrInode = errors.New("not a valid inode record")
	// ErrTooDeep says that names collide in so many bits of their hash that a
	// HAMT cannot hold them. The keyed prefix of the stored names makes it as
	// good as impossible.
	ErrTooDeep = errors.New("directory is too deep")
)

// Getter yields the plaintext of a block after it was verified against its link.
// It must be safe for concurrent use. Nobody may alter the bytes afterwards,
// neither who returned them nor who asked.
type Getter interface {
	Get(ctx context.Context, l link.Link) ([]byte, error)
}

// Putter seals and stores a block and returns its link. Refs are the sealed
// links that the block holds, as Refs lists them. Plain and refs are not altered
// afterwards; the Putter may keep them. The package never calls one Putter
// concurrently.
type Putter interface {
	Put(ctx context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error)
}

// Store reads and writes blocks.
type Store interface {
	Getter
	Putter
}

func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrCorrupt}, args...)...)
}
