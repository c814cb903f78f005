// Package layers tests what holds the source together: which package may
// import which, that each says what it is, and that the pages on packages and on
// libraries name those that there are. docs/architecture.md has the picture.
package layers
