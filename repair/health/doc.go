// Package health judges peers and packs from what was seen of them, and
// decides what to do next.
//
// A State knows groups, their slots and holders, and which shards the holders
// are believed to have. It learns from what its caller reports: Seen, Missed,
// Stated, Audited, and how its own actions ended. Decide gives the next
// actions: ask holders for statements, audit a sample, bring a hole its shard,
// give a slot a new holder.
//
// Peers. One time scale, dead-after, rules everything. A peer that was not
// heard for a twelfth of it is suspect, after all of it dead. Offline is not
// loss: until it is dead, a silent holder's shards count, and nothing is
// rebuilt because of it; status shows them as at risk. When a dead peer
// returns, so do its shards, and what was begun for its sake is cancelled. Only
// time in which anybody answered counts towards death, so that a laptop which
// slept for a week does not wake to a dead swarm. A peer that lied MaxLies times
// within 120 times dead-after, a year by default, counts as dead, however often
// it answers. One that is there but gives no proof of a shard owes it; who owes one for
// all of dead-after gives its slots up, but what it proves counts until others
// have that.
//
// Packs. A pack is live with so many of its n shards as are believed to lie
// with holders that are not dead. It is healthy, or injured when so many are
// missing that it should be repaired, or lost with fewer than k. In a coding
// with much parity, a missing shard or two can wait: rebuilding one costs
// reading k, rebuilding several at once costs the same (lazy). Where the owner
// has the pack at hand, nothing waits.
//
// Who repairs. The owner's device; and when it has not done so for a third of
// dead-after, the live holder whose key is nearest to the group's id. So far only
// owners keep a State.
//
// What may go. Evidence is what is known of a pack when its content may have to leave
// this device: Held says whether it is with holders enough.
//
// A State has no clock, does no I/O and starts nothing; it is not safe for
// concurrent use. With equal inputs it decides equally.
package health
