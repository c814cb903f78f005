// Package block seals and opens blocks, the unit of encryption and of address.
//
// A block is a header and a payload: a chunk of a file or a node of the DAG,
// compressed where that pays. Its key is the BLAKE3 hash of exactly these bytes,
// keyed with the drive's convergence secret, and it is sealed with AES-256-GCM
// under that one-use key; its identity is the BLAKE3-256 of the ciphertext. So
// equal chunks of one drive seal to equal blocks, a key never seals two
// messages, and nobody without the convergence secret can test whether a drive
// holds a file that he knows.
//
// The format is in docs/formats.md.
package block
