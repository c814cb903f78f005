// Package layers tests what holds the source together: which package may
// import which, that each says what it is, and that the page on libraries names
// the ones in use. docs/architecture.md has the picture.
package layers
