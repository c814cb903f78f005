// Package holders is a set of holders in memory for tests of the asking side:
// they keep shards and leases as the real ones do, behind the calls of
// net/client instead of a network, and can be away, slow, silent, full,
// unwilling, forgetful or lying.
//
// What they send of shards is proved and checked with the same code as on the
// network, so that a lie is found out where it would be.
package holders
