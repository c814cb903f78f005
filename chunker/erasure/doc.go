// Package erasure turns a pack into shards and back.
//
// A pack of one size class is cut into k contiguous data shards; n−k parity
// shards are added by a systematic Reed-Solomon code, and any k of the n rebuild
// the pack. A shard's address is its BLAKE3 root, so that each range of it can
// be proved by a Bao slice (see bao.go) against the manifest.
package erasure
