// Package memfs is an empty filesystem in memory: the least that a server has to
// do for a request. What it costs is what requests themselves cost, which makes
// it the measure for any other filesystem on the same request loop.
//
// It checks no permissions, and everything is behind one lock.
package memfs
