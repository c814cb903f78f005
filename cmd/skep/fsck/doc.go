// Package fsck checks a home, and says what it finds in terms of files: what lies on this
// device, in each of its parts and each against the others, and on request what holders
// have. docs/architecture.md has what is compared with what, under "Checking".
package fsck
