//go:build race

package simnet

import "runtime"

// oneProcessor has all goroutines run on one processor until it is told to stop:
// in Go 1.26 the timers of a bubble spoil the race detector when two processors
// run them (golang.org/issue/78156), and a simulated swarm has thousands. The
// detector compares what happened before what, and needs no second processor.
func oneProcessor() (stop func()) {
	before := runtime.GOMAXPROCS(1)
	return func() { runtime.GOMAXPROCS(before) }
}
