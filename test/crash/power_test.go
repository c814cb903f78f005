package crash

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"skep/test/blockdev"
	"skep/test/model"
	"skep/test/seed"
)

// newPower returns a tester for the time of a test, or skips it.
func newPower(t *testing.T, r *rand.Rand, most int) *Power {
	t.Helper()
	if err := blockdev.Usable(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "skep-power-")
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewPower(dir, r, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return x
}

// crowded gives the runtime more threads than there are processors: who waits
// for the disk may not keep the disk from answering.
func crowded(t *testing.T) {
	before := runtime.GOMAXPROCS(4 * runtime.NumCPU())
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
}

// tryPower runs cases on disks of their own, some at a time.
func tryPower(t *testing.T, from uint64, most int, cases func(yield func(Case) bool)) {
	t.Helper()
	workers := runtime.NumCPU()
	crowded(t)
	todo := make(chan Case)
	var wg sync.WaitGroup
	var testers []*Power
	for worker := range workers {
		x := newPower(t, rand.New(rand.NewPCG(from, uint64(worker))), most)
		testers = append(testers, x)
		wg.Go(func() {
			for c := range todo {
				if err := x.Run(c); err != nil && !t.Failed() {
					c, err = x.Shrink(c, err)
					t.Errorf("%v\n%v", c, err)
				}
			}
		})
	}
	cases(func(c Case) bool {
		if t.Failed() {
			return false
		}
		todo <- c
		return true
	})
	close(todo)
	wg.Wait()
	var total Power
	for _, x := range testers {
		total.Cases, total.Images, total.States = total.Cases+x.Cases, total.Images+x.Images, total.States+x.States
	}
	t.Logf("%d cases, %d images mounted, %d states looked at", total.Cases, total.Images, total.States)
}

// TestPowerPairs does pairs of operations.
func TestPowerPairs(t *testing.T) {
	from := seed.For(t)
	r := rand.New(rand.NewPCG(from, 5))
	every, most := 1, 12
	if long(t) == 0 {
		every = len(changes) * len(changes) / 6
	}
	tryPower(t, from, most, func(yield func(Case) bool) {
		for _, a := range changes {
			for _, b := range changes {
				if r.IntN(every) == 0 && !yield(somePair(r, a, b).Case) {
					return
				}
			}
		}
	})
}

// TestPowerRandom does longer cases.
func TestPowerRandom(t *testing.T) {
	from := seed.For(t)
	r := rand.New(rand.NewPCG(from, 6))
	end := time.Now().Add(long(t))
	most := 12
	if long(t) > 0 {
		most = 80
	}
	tryPower(t, from, most, func(yield func(Case) bool) {
		for i := 0; i < 4 || time.Now().Before(end); i++ {
			if !yield(Random(r)) {
				return
			}
		}
	})
}

// TestPowerBroken leaves out flushes of one kind each: the tester has to see it.
func TestPowerBroken(t *testing.T) {
	crowded(t)
	g := "A/g"
	for name, b := range map[string]struct {
		without omission
		c       Case
	}{
		"journal":       {flushFile + "state/journal", Case{Setup: setup, Ops: []model.Op{{Kind: model.Create, Path: "n"}, {Kind: model.Sync}}}},
		"backing files": {flushFile + "files", Case{Setup: setup, Ops: []model.Op{{Kind: model.Write, Path: g, Off: 10, Len: 20, Fill: 3}, {Kind: model.Fsync, Path: g}}}},
		"what was passed through": {flushFile + "files", Case{Passthrough: true, Setup: setup, Ops: []model.Op{
			{Kind: model.Open, Path: "n", Flags: os.O_WRONLY | os.O_CREATE | os.O_TRUNC}, {Kind: model.WriteTo, Len: 20000, Fill: 3}, {Kind: model.FsyncOpen}}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPower(t, rand.New(rand.NewPCG(1, 1)), 10)
			x.Quiet = true
			if err := x.Run(b.c); err != nil {
				t.Fatalf("whole: %v", err)
			}
			x.Without, x.Most = b.without, 1000
			if err := x.Run(b.c); err == nil {
				t.Error("nobody noticed")
			} else {
				t.Logf("seen: %v", err)
			}
		})
	}
}
