//go:build race

package health

// raceEnabled makes the simulation smaller where everything is slow.
const raceEnabled = true
