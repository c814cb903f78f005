package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"skep/test/memdisk"
	"skep/test/model"
	"skep/test/seed"
)

// trial is a case as it is printed, to be done again.
type trial[C any] struct {
	Setup int // number of what is there before
	Rand  uint64
	Case  C
}

func (p trial[C]) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("BUG: crash: %v", err))
	}
	return string(b)
}

// kind is what a driver has to know of cases of one type.
type kind[C any] struct {
	env    string // set to a case that was printed, has that done
	least  uint64 // how many cases are done at random
	tries  uint64 // how often a simpler one is tried, as how it ends is a matter of chance
	random func(r *rand.Rand, setup []model.Op) C
	run    func(x *Tester, from *Prepared, setup []model.Op, c C) error
	shrink func(c C, fails func(C) bool) C
}

// driver does cases of one type.
type driver[C any] struct {
	kind     kind[C]
	total    Tester // counts
	prepared []*Prepared
	without  func(memdisk.Event) bool // see Tester
}

func newDriver[C any](t *testing.T, k kind[C]) *driver[C] {
	t.Helper()
	x := &driver[C]{kind: k}
	for _, s := range wovenSetups {
		p, err := Prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		x.prepared = append(x.prepared, p)
	}
	return x
}

func (x *driver[C]) run(p trial[C]) error {
	tester := &Tester{Rand: rand.New(rand.NewPCG(p.Rand, 2)), Random: 1, Renew: true, Without: x.without}
	err := x.kind.run(tester, x.prepared[p.Setup], wovenSetups[p.Setup], p.Case)
	x.total.add(tester)
	return err
}

// shrink makes a case simpler.
func (x *driver[C]) shrink(p trial[C], err error) (trial[C], error) {
	end := time.Now().Add(shrinkTime)
	p.Case = x.kind.shrink(p.Case, func(c C) bool {
		for i := uint64(0); i < x.kind.tries && time.Now().Before(end); i++ {
			q := trial[C]{p.Setup, p.Rand + i, c}
			if qerr := x.run(q); qerr != nil {
				p.Rand, err = q.Rand, qerr
				return true
			}
		}
		return false
	})
	return p, err
}

// at is a case at random.
func (k kind[C]) at(seed, n uint64) trial[C] {
	r := rand.New(rand.NewPCG(seed, n))
	p := trial[C]{Setup: r.IntN(len(wovenSetups)), Rand: r.Uint64()}
	p.Case = k.random(r, wovenSetups[p.Setup])
	return p
}

// again does a case that was printed.
func (x *driver[C]) again(s string) error {
	var p trial[C]
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return err
	}
	if err := x.run(p); err != nil {
		return fmt.Errorf("%v\n%w", p.Case, err)
	}
	return nil
}

// allAgain does cases that failed once.
func (x *driver[C]) allAgain(t *testing.T, found map[string]string) {
	for name, s := range found {
		if err := x.again(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// search does cases at random, or the one that is asked for, and makes one that fails
// simpler.
func (x *driver[C]) search(t *testing.T) {
	from := seed.For(t)
	if s := os.Getenv(x.kind.env); s != "" {
		if err := x.again(s); err != nil {
			t.Error(err)
		}
		return
	}
	begin := time.Now()
	end := begin.Add(long(t))
	for n := uint64(0); n < x.kind.least/sample || time.Now().Before(end); n++ {
		p := x.kind.at(from, n)
		err := x.run(p)
		if err == nil {
			continue
		}
		small, smallErr := x.shrink(p, err)
		t.Fatalf("case %d: %v\nsimpler: %s='%v'\n%v\n%v", n, err, x.kind.env, small, small.Case, smallErr)
	}
	t.Logf("%d cases, crashed at %d moments, %d states looked at, %v", x.total.Cases, x.total.Moments, x.total.States, time.Since(begin))
}
