//go:build race

package state

func init() { underRace = true }
