// Package swarm stores packs with holders and reads them back.
//
// A pack's shards go to the holders of its group, one slot each, as many at once as
// our own line carries; a range of a pack comes from the data shard that has it or,
// when that holder is slow, gone or wrong, from the same range of any k shards. A
// reader waits for one slow peer no longer than it takes to notice: then the others
// are asked beside it, and the first to complete the answer wins.
//
// The swarm knows nothing of what is in a pack. What it learns of peers on the
// way, it tells the directory of peers.
package swarm
