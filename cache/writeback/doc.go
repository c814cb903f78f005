// Package writeback turns what changed on this device into commits.
//
// A commit takes a cut of the tree, chunks and seals what changed, fills packs,
// rebuilds the directories on the changed paths from the bottom up, and hands
// every full pack, erasure-coded, to the Sink while the next one fills. When all
// packs are acknowledged, the block index's new segment, the group table and the
// signed commit follow in a last pack, and the head that points to it is
// published. Only then is what was taken clean. One that would say what the newest one
// says is not published: files that cannot be read are tried again and again.
//
// Before it takes anything new, a commit moves the live blocks of packs that are mostly
// dead, or clearly less safe than they would be with the peers that are there now, into
// new packs (fold.go, strengthen.go), and those that this device alone has (onlyhere.go).
// After it, what nothing needs is given up, as soon as no other device may need it.
//
// Where holders have no room for new content, another commit takes what needs none, or
// nothing that is deleted would ever make room, and nobody else would find what was lost
// and went out again (lean.go).
//
// A commit that fails halfway costs little when it is tried again: the packs
// that were acknowledged are in the account of blocks, and their blocks are
// found as duplicates.
package writeback
