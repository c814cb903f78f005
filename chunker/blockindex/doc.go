// Package blockindex says where blocks lie: hash → group, pack, offset, length.
//
// The index of a drive is a row of sorted segments, the newest last, that are
// merged as they grow, as in an LSM tree (O'Neil and others 1996). A segment is
// cut into pieces, each a sealed block of its own; the commit names the pieces
// with the first hash in each, so that a lookup fetches one piece a segment.
// Merging is a union: one block may lie in several places, and a reader tries
// them all.
//
// The format is in docs/formats.md.
package blockindex
