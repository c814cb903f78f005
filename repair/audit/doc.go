// Package audit chooses what of a peer's holdings to look at, and judges what
// came of it.
//
// An audit asks a holder for some leaves of one shard, each position following
// from the bytes of the one before (package erasure), so that only somebody
// who has the shard at hand can answer in time. Which shard, and with which
// nonce, follows from a seed that the auditor keeps to itself, the peer, and a
// counter: nobody else can foresee it, and a simulation can repeat it.
//
// Every leaf that a peer holds is equally likely to be looked at, whatever the
// size of its shards. So PerDay leaves a day find the loss of 1 % of all that
// a peer holds with a probability of 99 %: 0.99^458 is 0.01.
//
// Everything here is a pure function.
package audit
