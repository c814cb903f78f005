// Package link names blocks.
//
// A Link is a block's identity, the hash of its ciphertext, together with the
// key that opens it: whoever has the link can find and read the block. Where
// the block lies is no part of it. Outside the sealed DAG only the Address, the
// hash alone, may appear; a Link never prints its key.
//
// Inside the DAG a link is a CIDv1 with the block's true codec and a multihash
// of a private-use code whose digest is hash ‖ key. Because the code is not a
// registered hash, no IPFS tool will ever publish or accept such a CID.
package link
