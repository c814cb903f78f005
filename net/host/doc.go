// Package host builds the libp2p host of a peer.
//
// A peer's identity is its Ed25519 key: as a group.PeerKey in the words of the
// swarm, as a peer.ID in libp2p. Both hold the whole public key, so each gives
// the other without asking anybody.
//
// What other peers can make this one spend is bounded here: connections,
// streams and the memory of their windows, in total, for each peer and for each
// address. On loopback nothing is counted by address, so that a whole swarm
// runs on one machine.
package host
