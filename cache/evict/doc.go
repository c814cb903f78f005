// Package evict keeps what a drive takes of the local disk within bounds, as
// package space decides: it lets go of content that is safely out, slows
// writers down to what the uplink takes, and refuses them when nothing can go.
//
// What could be let go of is found by a hand that goes around the backing files
// in the order in which they came here, some at a time, and takes the least
// useful of each handful: the tables are never scanned as a whole, nothing is
// kept in memory for each file, and nothing has to be rebuilt after a restart.
package evict
