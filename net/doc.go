// Package net is the layer of the swarm: the libp2p host, the DHT, the shard
// protocol with its serving and its asking side, and what is built on them to
// place and find shards. To this layer a shard is opaque: it has a root, by
// which it can be proved, and belongs to a group, whose public words are all
// that this layer can read.
//
// It imports chunker for these words and nothing else of ours. Shards that it
// stores for others go through holder.Store, which cache/hosted satisfies.
// Nothing lies directly in this folder: each package below is named for what
// it holds. The protocol is described in docs/protocol.md.
package net
