// Package place picks the peers for the slots of a group.
//
// The slots of a group should not fail together, so the holders are spread: no
// two in one household while there is another household, then no two in one
// address group, then by operator, then by country. Among peers that are
// equally good in this, those are preferred that have much free room for each
// slot of ours which they already hold, and that are there more of the time;
// among equals, chance decides. Where a swarm does not have enough domains, as
// when all of it runs on one machine, several holders share one, and the
// placement says so: that alone is never a reason to fail.
//
// Everything here is a pure function of its inputs and the random source
// handed in: equal inputs, in whatever order, give equal placements.
package place
