// Package secrecy tests that no secret reaches a log: whatever type of ours
// carries a key, and however it is printed, encoded or logged, its bytes do not
// show.
package secrecy
