// Package hosted is the disk of a holder: the shards that this device keeps for
// others, the leases that say how long, and the slot records it is a keeper of.
//
// Every group has a folder, named by its id, with one file a shard and one file
// for its lease; every slot record has a file of its own. All files describe
// themselves: the index in memory (a bitmap and some bytes a group) is made
// from names, lengths and leases when the store is opened, and nothing else is
// kept beside them. A shard's file begins with its signed manifest and its Bao
// tree, so that a range is proved by reading no more than that and the leaves
// it touches. docs/protocol.md has the bytes.
//
// A file comes into being whole: it is written under tmp, flushed, renamed to
// its place, and its folder flushed, before the call that brought it returns.
// So what a holder says to have, it has after a power cut too. A file that was
// cut short, or whose bytes do not match their tree, is never served: it is
// removed when it is found, and the holder stops claiming it.
//
// All paths are resolved inside the store's folder (os.Root); folders have mode
// 0700. One process has a store open at a time. A Store is safe for concurrent
// use.
package hosted
