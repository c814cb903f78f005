// Package reseal has content go out again of which holders have lost too much, as
// far as it is on this device.
//
// Blocks are named by their content: the same chunk, sealed anew, is the same
// block in another pack, and whatever referred to it has it again. So all that has to
// be done is to find the files whose chunks lie in lost packs and nowhere else, to
// make sure that what is here of them is what was committed, and to have the next
// commit take these chunks as if they had been written. What is not here, or
// differs, is named.
package reseal
