// Package run is the loop that keeps a drive's packs whole: it observes the
// holders, has repair/health decide, and does what that says.
//
// A Loop holds one health.State and is the only one to touch it. At each Step
// it takes in the owner's account of groups, and what the directory of peers
// has heard since, and starts the actions that the state decides on. Each runs
// in a goroutine of its own, as many of a kind as the state allows, and reports
// its end to the state exactly once. No lock is held while anything waits for
// the network.
//
// What the loop finds out goes back: to the directory of peers, who answered,
// who did not, who lied and what is thought of them; to the account, who holds
// a slot now and which packs are known to lie there. The account stays the one
// truth: it is read again every minute, when Refresh says so, and after each
// finding, and what it says differently is told to it again.
//
// Building a shard takes as much memory as its pack has shards; a budget bounds
// what all repairs together use.
package run
