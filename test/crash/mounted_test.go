package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync/atomic"
	"testing"
	"time"

	"skep/test/blockdev"
	"skep/test/model"
	"skep/test/seed"
	"skep/test/served"
)

func TestMain(m *testing.M) {
	blockdev.Main()
	if c, yes := served.Asked(); yes {
		Serve(c)
	}
	debug.SetGCPercent(400) // what is made for one state is not needed for the next
	debug.SetMemoryLimit(1 << 30)
	os.Exit(m.Run())
}

// killedCase is a case whose server is killed.
type killedCase struct {
	Case
	kill Kill
}

// tryKilled runs cases on mounts, some at a time. The first that fails is made
// shorter and reported.
func tryKilled(t *testing.T, cases func(yield func(killedCase) bool)) {
	t.Helper()
	needsFUSE(t)
	base, err := os.MkdirTemp("", "skep-killed-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(base)
	var n, met atomic.Int64
	share(t, runtime.GOMAXPROCS(0), cases, func(worker int) func(killedCase) {
		dir := filepath.Join(base, fmt.Sprint(worker))
		return func(c killedCase) {
			before, err := RunKilled(dir, c.Case, c.kill, "")
			if err != nil && !t.Failed() {
				short, kill, err := ShrinkKilled(dir, c.Case, c.kill, err)
				t.Errorf("%v, %v: %v", short, kill, err)
			}
			n.Add(1)
			if before {
				met.Add(1)
			}
		}
	})
	t.Logf("%d cases, %d of them killed before the last operation", n.Load(), met.Load())
}

// TestKilledPairs does pairs of operations on a mount and kills its server once
// in each: some pairs, or all.
func TestKilledPairs(t *testing.T) {
	pairs(t, seed.For(t), 3, 12, tryKilled)
}

// pairs tries so many pairs, about; or, at length, all of them, apart for each
// operation that comes first.
func pairs(t *testing.T, from, stream uint64, n int, try func(*testing.T, func(yield func(killedCase) bool))) {
	if long(t) == 0 {
		try(t, somePairs(rand.New(rand.NewPCG(from, stream)), changes, len(changes)*len(changes)/n))
		return
	}
	for i, a := range changes {
		t.Run(fmt.Sprintf("%d %v", i, a.Kind), func(t *testing.T) {
			try(t, somePairs(rand.New(rand.NewPCG(from, stream+100*uint64(i+1))), changes[i:i+1], 1))
		})
	}
}

// somePairs is one in so many of the pairs that begin with one of some operations,
// each as one of the cases that it makes.
func somePairs(r *rand.Rand, first []model.Op, every int) func(yield func(killedCase) bool) {
	return func(yield func(killedCase) bool) {
		for _, a := range first {
			for _, b := range changes {
				if r.IntN(every) == 0 && !yield(somePair(r, a, b)) {
					return
				}
			}
		}
	}
}

// TestKilledRandom does longer cases.
func TestKilledRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(seed.For(t), 4))
	end := time.Now().Add(long(t))
	tryKilled(t, func(yield func(killedCase) bool) {
		for i := 0; i < 8 || time.Now().Before(end); i++ {
			c := Random(r)
			if !yield(killedCase{c, someKill(r, len(c.Ops))}) {
				return
			}
		}
	})
}

// somePair is one of the cases that a pair makes.
func somePair(r *rand.Rand, a, b model.Op) killedCase {
	var all []Case
	pair(a, b, func(c Case) bool { all = append(all, c); return true })
	c := all[r.IntN(len(all))]
	return killedCase{c, someKill(r, len(c.Ops))}
}

// TestKilledBroken has a server keep what it should have written: the tester has
// to see it.
func TestKilledBroken(t *testing.T) {
	needsFUSE(t)
	c := Case{Setup: setup, Ops: []model.Op{{Kind: model.Write, Path: "A/g", Off: 10, Len: 20, Fill: 3}}}
	for name, without := range map[string]omission{"journal": writeFile + "state/journal", "backing files": writeFile + "files"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if _, err := RunKilled(dir, c, Kill{At: 100}, ""); err != nil {
				t.Fatalf("whole: %v", err)
			}
			if _, err := RunKilled(dir, c, Kill{At: 100}, without); err == nil {
				t.Error("nobody noticed")
			} else {
				t.Logf("seen: %v", err)
			}
		})
	}
}

func needsFUSE(t *testing.T) {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("this machine has no FUSE: %v", err)
	}
}
