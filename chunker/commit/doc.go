// Package commit holds the top of a drive's DAG: the commit, an immutable
// signed state; the group table, where the drive's packs lie; and the head, the
// mutable pointer to a device's newest commit. A locator says where something
// lies that must be found before the block index can be.
//
// The formats are in docs/formats.md.
package commit
