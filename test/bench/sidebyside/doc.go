// Command sidebyside compares a mounted drive with what stands beside it: the
// bare directory, an empty filesystem in memory on go-fuse's stock request loop
// (what requests cost at the least), the same where the kernel checks
// permissions, as on a drive, and so asks for a directory's attributes after each
// change, and on our loop, go-fuse's loopback, and
// gocryptfs. All are measured in one run, one after the other for each line and
// round, so that whatever else the machine does strikes all alike; the page has
// medians, ratios and goals.
//
// As root it measures both ways of mounting: with passthrough, and as an
// ordinary user. The drive has no peers: what is measured is this machine.
//
// Usage: sidebyside -skep bin/skep [-quick] [-rounds 5] [-only REGEXP] [-systems LIST]
package main
