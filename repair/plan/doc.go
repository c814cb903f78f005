// Package plan picks k and n.
//
// What people set is a target: how improbable it must be that at one instant
// fewer than k of a pack's n holders are reachable. What a swarm offers is a
// number of peers, each there for some part of the time, in domains that fail
// together. New weighs the one against the other:
//
//   - In a large swarm it takes MaxK of the fewest slots that meet the target
//     (32 of 55 where peers are there 85 % of the time, 32 of 73 at 70 %).
//   - In a smaller one, the largest k whose slots there are, as long as that
//     does not cost more than MaxExpansion.
//   - Where no coding meets the target, it takes all the slots there are and
//     about half of them as k, fewer where peers are seldom there; the plan
//     says how far from the target that is and what is missing.
//
// Where it can, it also makes the loss of any one domain survivable. Some
// peers are never planned with: repair needs someone to rebuild onto.
//
// Peers are taken to be equally available, at the mean of what was measured.
// For holders picked at random that errs on the safe side: differing ones
// scatter less around their mean (Hoeffding 1956). Loss gives the exact figure
// for the holders that a group really has.
//
// Slots goes on from there to the holders of one pack, and Storable to what a swarm
// could take, given the room that its peers have.
//
// Weak says whether what is stored already would be stored more safely now, and Frailty
// counts the packs of which that is so, or that survive the loss of no holder.
//
// Everything here is a pure function.
package plan
