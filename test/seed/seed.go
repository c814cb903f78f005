package seed

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
)

// env replays a seed that was printed.
const env = "SKEP_SEED"

// For returns the seed of a random test and prints it: that of SKEP_SEED, else a
// new one in long runs, else always the same.
func For(t testing.TB) uint64 {
	t.Helper()
	seed := uint64(1)
	if long() {
		seed = rand.Uint64()
	}
	if v := os.Getenv(env); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatalf("%s: %v", env, err)
		}
	}
	t.Logf("%s=%d replays this", env, seed)
	return seed
}

// long reports whether the tests run at length.
func long() bool {
	for _, v := range []string{"SKEP_SOAK", "SKEP_CRASH", "SKEP_POSIX"} {
		if os.Getenv(v) != "" {
			return true
		}
	}
	return false
}
