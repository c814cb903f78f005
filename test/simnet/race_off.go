//go:build !race

package simnet

// oneProcessor is of use under the race detector only.
func oneProcessor() (stop func()) { return func() {} }
