// Package group holds the public words of the swarm: what an owner says of a
// group of packs and what a holder says of its shards. They are signed, carry
// no content and no key, and are all that placing, checking and repairing
// shards needs.
//
//   - A Manifest, signed by the group's key, describes one pack: its coding and
//     the roots of its shards. Every holder keeps it beside its shard.
//   - A Lease, signed by the group's key, says until when and for how many bytes
//     the group is wanted, and which of its packs are dead.
//   - A Statement, signed by a holder, says which packs' shards it holds.
//   - A Release, signed by the group's key, says to one holder that some of what it
//     holds is not wanted from it.
//   - A SlotRecord is a small sealed value under a key of its own: recovery
//     record, keyring, head.
//
// A Group is the owner's own account of one group; it travels sealed with the
// drive.
package group
