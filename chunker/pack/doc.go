// Package pack lays blocks end to end into packs, the unit of erasure coding.
//
// A pack begins with a random id; the blocks follow, then padding that nobody
// can tell from a block, then an index of the blocks and a trailer, both sealed
// under keys that derive from the drive's read secret and the id. So a holder
// sees a run of random bytes in one of eleven sizes, and who has the read secret
// can list a pack from its end without any other index.
//
// The format is in docs/formats.md.
package pack
