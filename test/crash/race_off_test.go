//go:build !race

package crash

// sample has every moment looked at.
const sample = 1

// underRace says that the race detector is there.
const underRace = false
