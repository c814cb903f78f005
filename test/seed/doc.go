// Package seed gives random tests their seed, so that what failed can be
// replayed, and so that a short run finds what it found before.
package seed
