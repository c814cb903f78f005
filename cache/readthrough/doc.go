// Package readthrough brings content here that is not: link → bytes.
//
// A block is looked up in the account of blocks or, where that has not heard of
// it, or of a place where it still is, in the segments of the newest commit's index;
// its bytes come from a pack kept here, from memory, or from the swarm. Nothing is
// returned that was not checked against the link. Small blocks come in whole units with
// what lies beside them, large ones alone, or together where somebody reads a file in
// order and they lie side by side.
//
// Packs tells which packs something lies in.
package readthrough
