//go:build !race

package crash

// sample has every moment looked at.
const sample = 1
