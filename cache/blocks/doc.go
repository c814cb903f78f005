// Package blocks is the account of what the drive has stored: every block with
// its places and the references to it, every pack with its live bytes and the
// slots that acknowledged it, every group.
//
// A block's count is the number of references from blocks that are stored
// themselves; the newest commit counts one. A block enters with its pack, and
// its children are counted then. What nothing refers to when a commit has been
// published, and what loses its last reference, is dropped step by step, so
// that no step is as large as what was deleted. A pack whose live bytes come to
// nothing is dead.
//
// Of a block that lies in several places the newest is its home: there its
// bytes are live.
package blocks
