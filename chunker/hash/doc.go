// Package hash is BLAKE3 of what is large: of blocks, and of the leaves of shards.
//
// BLAKE3 hashes chunks of 1 KiB, each by itself, and then pairs of their hashes, pair
// by pair, up to the root. A processor with AVX-512 does sixteen of them at once here,
// in about half the time of the libraries, which do eight, or gather their words one
// by one. Without it the libraries do all of it. The hashes are the same.
package hash
