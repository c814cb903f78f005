//go:build race

package crash

// sample has one moment of so many looked at where everything is slow: most of what
// happens at a moment happens at others, too.
const sample = 4

// underRace says that the race detector is there.
const underRace = true
