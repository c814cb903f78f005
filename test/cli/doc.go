// Package cli tests the command line with what goes wrong: bad input, missing
// pieces, full and damaged disks, other users. Each gets an exit status (1 for
// what was tried and failed, 2 for what makes no sense) and one line on
// standard error that says what to do; and nothing that was there is lost.
package cli
