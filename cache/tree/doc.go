// Package tree is the tree of inodes and directories on this device, with the
// rules of POSIX.
//
// What it knows is in the tables of cache/state; what changes is journalled as
// one batch an operation, and survives the end of the process when the
// operation returns. The content of a small file is a row of the tables, that
// of a larger one a backing file. Directories come from the newest commit when
// first looked at; content that is not here comes through Content when read.
//
// Every change of a name or of an inode leaves a mark, with the epoch in which
// it happened. A commit begins a new epoch and takes what the marks of the old
// ones name, from a view of the tables that does not change: see Cut.
//
// Locks, in the order in which they may be taken: gate (shared by every
// change, exclusive for the instant of a cut), names (shared by who adds a name
// or takes one away, exclusive for who moves one or gives an inode a second),
// inode.mu (attributes and content of one inode, and the names of a directory).
// While names is held the tree keeps its shape, so that several inodes are
// locked from the top down: a directory before what is in it. Nothing waits for
// the network while holding any of them but the inode's own fetch of a missing
// range.
package tree
