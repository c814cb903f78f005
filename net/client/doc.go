// Package client is the asking side of the shard protocol: one call a message.
//
// A call takes the peer's key, connects when there is no connection yet, and
// returns only what was checked: bytes against the manifest's root, words
// against the key that signs them. Its errors tell a peer that does not have
// something, one that will not, one that cannot be reached, and one that lied.
//
// Calls may be made from many goroutines. No more than a few go to one peer at
// once, so that a client never makes a holder busy by itself; the others wait,
// until their context ends. Who waits for a connection keeps nobody else waiting:
// it takes a place among all calls only when there is one.
package client
