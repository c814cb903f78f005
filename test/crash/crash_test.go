package crash

import (
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"skep/test/memdisk"
	"skep/test/model"
	"skep/test/seed"
)

// longEnv, set to a duration, makes the tests of this package try everything,
// and go on with cases at random for so long.
const longEnv = "SKEP_CRASH"

func long(t *testing.T) time.Duration {
	t.Helper()
	v := os.Getenv(longEnv)
	if v == "" {
		return 0
	}
	d, err := time.ParseDuration(v)
	if err != nil {
		t.Fatalf("%s: %v", longEnv, err)
	}
	return d
}

// share gives cases to some workers, until there are no more or the test has failed.
// begin returns what a worker does with each that it gets.
func share[C any](t *testing.T, workers int, cases func(yield func(C) bool), begin func(worker int) func(C)) {
	t.Helper()
	todo := make(chan C)
	var wg sync.WaitGroup
	for worker := range workers {
		do := begin(worker)
		wg.Go(func() {
			for c := range todo {
				do(c)
			}
		})
	}
	cases(func(c C) bool {
		if t.Failed() {
			return false
		}
		todo <- c
		return true
	})
	close(todo)
	wg.Wait()
}

// try runs cases on all processors. The first that fails is made shorter and
// reported.
func try(t *testing.T, seed uint64, cases func(yield func(Case) bool)) {
	t.Helper()
	var testers []*Tester
	var failing sync.Mutex // one is made shorter at a time
	share(t, runtime.GOMAXPROCS(0), cases, func(worker int) func(Case) {
		x := &Tester{Rand: rand.New(rand.NewPCG(seed, uint64(worker))), Random: 2, Sample: sample}
		testers = append(testers, x)
		return func(c Case) {
			err := x.Run(c)
			if err == nil {
				return
			}
			failing.Lock()
			defer failing.Unlock()
			if !t.Failed() {
				c, err = x.Shrink(c, err)
				t.Errorf("%v\n%v", c, err)
			}
		}
	})
	var total Tester
	for _, x := range testers {
		total.add(x)
	}
	t.Logf("%d cases, crashed at %d moments, %d states looked at", total.Cases, total.Moments, total.States)
}

// TestPairs tries pairs of operations: a few, another few at each run, or all.
func TestPairs(t *testing.T) {
	from := seed.For(t)
	r := rand.New(rand.NewPCG(from, 0))
	if long(t) > 0 {
		for i, a := range changes {
			t.Run(fmt.Sprintf("%d %v", i, a.Kind), func(t *testing.T) { try(t, from, pairsOf(a)) })
		}
		return
	}
	try(t, from, func(yield func(Case) bool) {
		for _, a := range changes {
			for c := range pairsOf(a) {
				if r.IntN(500) == 0 && !yield(c) {
					return
				}
			}
		}
	})
}

// TestRandom tries longer cases.
func TestRandom(t *testing.T) {
	from := seed.For(t)
	r := rand.New(rand.NewPCG(from, 0))
	end := time.Now().Add(long(t))
	try(t, from, func(yield func(Case) bool) {
		for i := 0; i < 15 || time.Now().Before(end); i++ {
			if !yield(Random(r)) {
				return
			}
		}
	})
}

// TestFaults lets the disk fail.
func TestFaults(t *testing.T) {
	from := seed.For(t)
	x := &Tester{Rand: rand.New(rand.NewPCG(from, 0)), Random: 1}
	end := time.Now().Add(long(t))
	for i := 0; i < 10 || time.Now().Before(end); i++ {
		c := Random(x.Rand)
		if err := x.Faults(c, x.Rand, 3); err != nil {
			t.Fatalf("%v\n%v", c, err)
		}
	}
	t.Logf("%d cases", x.Cases)
}

// TestBroken leaves out flushes of one kind each: the tester has to see it.
func TestBroken(t *testing.T) {
	f, g := "A/f", "A/g"
	sync := model.Op{Kind: model.Sync}
	fill := func(b byte) model.Op { // five of them need a new segment
		return model.Op{Kind: model.Write, Path: f, Len: 15000, Fill: b}
	}
	for name, b := range map[string]struct {
		without func(memdisk.Event) bool
		ops     []model.Op
		after   []model.Op // other than setup
	}{
		"the mark before an overwrite": {without: flushOfFile("/state/journal"),
			ops: []model.Op{{Kind: model.Write, Path: g, Off: 10, Len: 20, Fill: 3}}, after: committed},
		"journal":              {without: flushOfFile("/state/journal"), ops: []model.Op{{Kind: model.Create, Path: "n"}, sync}},
		"names of the journal": {without: flushOfDir("/state/journal"), ops: []model.Op{fill(3), fill(4), fill(5), fill(6), fill(7), sync}},
		"backing files": {without: flushOfFile("/files"),
			ops: []model.Op{{Kind: model.Write, Path: g, Off: 10, Len: 20, Fill: 3}, {Kind: model.Fsync, Path: g}}},
		"names of backing files": {without: flushOfDir("/files"),
			ops: []model.Op{{Kind: model.Write, Path: f, Len: 18000, Fill: 3}, {Kind: model.Fsync, Path: f}}},
		"what a small file leaves the journal for": {without: flushOfFile("/files"),
			ops: []model.Op{{Kind: model.Fsync, Path: f}, {Kind: model.Append, Path: f, Len: 18000, Fill: 3}}},
		"what replaces another": {without: flushOfFile("/files"),
			ops: []model.Op{{Kind: model.Write, Path: g, Off: 10, Len: 20, Fill: 3}, {Kind: model.Rename, Path: g, To: f}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := &Tester{Rand: rand.New(rand.NewPCG(1, 1)), Random: 1}
			c := Case{Setup: setup, Ops: b.ops}
			if b.after != nil {
				c.Setup = b.after
			}
			if err := x.Run(c); err != nil {
				t.Fatalf("with all flushes: %v", err)
			}
			x.Without = b.without
			if err := x.Run(c); err == nil {
				t.Error("nobody noticed")
			} else {
				t.Logf("seen: %v", err)
			}
		})
	}
}

func flushOfFile(dir string) func(memdisk.Event) bool {
	return func(e memdisk.Event) bool { return e.Kind == memdisk.Flush && e.Below(dir) }
}

func flushOfDir(dir string) func(memdisk.Event) bool {
	return func(e memdisk.Event) bool { return e.Kind == memdisk.FlushDir && e.Below(dir) }
}
