// Package cli is skep's command line: one file for each command. Commands that
// concern a drive talk to the daemon of its home, which mount starts if it is
// not there.
package cli
