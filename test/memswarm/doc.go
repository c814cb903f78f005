// Package memswarm is a swarm in memory for tests of the layers above the
// network: holders that keep shards and leases as the real ones do, and can be
// taken away, emptied, or made to lie.
package memswarm
