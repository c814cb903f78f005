// Package harness runs skep as people do: real processes of the real binary,
// on loopback, with real mounts. Tests say what happens to them and what must
// be true afterwards.
//
// A test package calls Main from its TestMain, which builds the binary once.
// NewSwarm starts storage peers; a Device is a home with a drive on that swarm.
// All state lies in a short temporary directory of the test's own. When a test
// ends, however it ends, its processes are killed by their ids, its mounts are
// taken away and its files removed; if it failed, the ends of all logs are
// shown.
//
// Nothing here waits for a fixed time: Until polls a condition until a limit.
package harness
