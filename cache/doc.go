// Package cache is the layer of the local disk: the journal that is the truth
// on this device, the tables derived from it, the tree of inodes with the POSIX
// rules, the files that hold content, the shards held for others, and the two
// ways between them and the swarm: write-back (dirty set → commit) and
// read-through (link → bytes).
//
// It knows nothing of the kernel and nothing of the network. It reaches peers
// through two interfaces of its own, writeback.Sink and readthrough.Source.
package cache
