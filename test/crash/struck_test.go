package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"skep/test/seed"
)

// struckEnv, set to a case that was printed, has that done.
const struckEnv = "SKEP_STRUCK"

// printedStruck is a case as it is printed, to be done again.
type printedStruck struct {
	Setup int // number of what is there before
	Rand  uint64
	Case  Struck
}

func (p printedStruck) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("BUG: crash: %v", err))
	}
	return string(b)
}

// struck does cases.
type struck struct {
	cases, states int
	prepared      []*Prepared
}

func newStruck(t *testing.T) *struck {
	t.Helper()
	x := &struck{}
	for _, s := range wovenSetups {
		p, err := Prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		x.prepared = append(x.prepared, p)
	}
	return x
}

func (x *struck) run(p printedStruck) error {
	tester := &Tester{Rand: rand.New(rand.NewPCG(p.Rand, 2)), Random: 1, Renew: true}
	p.Case.Setup = wovenSetups[p.Setup]
	err := tester.RunStruck(x.prepared[p.Setup], p.Case)
	x.cases, x.states = x.cases+1, x.states+tester.States
	return err
}

// shrink makes a case simpler. How it ends is a matter of chance: each is tried a few
// times.
func (x *struck) shrink(p printedStruck, err error) (printedStruck, error) {
	end := time.Now().Add(shrinkTime)
	p.Case = ShrinkStruck(p.Case, func(c Struck) bool {
		for i := uint64(0); i < 8 && time.Now().Before(end); i++ {
			q := printedStruck{p.Setup, p.Rand + i, c}
			if qerr := x.run(q); qerr != nil {
				p.Rand, err = q.Rand, qerr
				return true
			}
		}
		return false
	})
	return p, err
}

// struckAt is a case at random.
func struckAt(seed, n uint64) printedStruck {
	r := rand.New(rand.NewPCG(seed, n))
	p := printedStruck{Setup: r.IntN(len(wovenSetups)), Rand: r.Uint64()}
	p.Case = Strike(r, wovenSetups[p.Setup], 4+r.IntN(25))
	return p
}

// again does a case that was printed.
func (x *struck) again(s string) error {
	var p printedStruck
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return err
	}
	if err := x.run(p); err != nil {
		return fmt.Errorf("%v\n%w", p.Case, err)
	}
	return nil
}

// foundStruck are cases that failed once.
var foundStruck = map[string]string{
	"killed when it was cut, before the journal said what is left of it": `{"Setup":2,"Rand":9341558008686361784,"Case":{"Passthrough":true,"Blows":[
		{"Op":{"Kind":"write","Path":"A/f","Off":4297,"Len":42413,"Fill":2}},{"Op":{"Kind":"commit","Mode":2}},{"Op":{"Kind":"evict","Name":"all of it"}},
		{"Op":{"Kind":"truncate","Path":"A/f","Len":171},"Ill":{"What":"journal full","After":2,"Times":1}}]}}`,
	"what was cut off, before a write that failed": `{"Setup":3,"Rand":8119213373153278342,"Case":{"Blows":[
		{"Op":{"Kind":"open","Path":"A/f","Handle":2,"Flags":1}},{"Op":{"Kind":"truncate-open","Len":4210,"Handle":2}},
		{"Op":{"Kind":"commit"},"Within":[{"Op":{"Kind":"write-to","Off":40469,"Len":1,"Fill":5,"Handle":2},
			"Ill":{"What":"journal full","After":1,"Times":1},"Moment":1}]}]}}`,
	"appended to what was cut off, without room for it": `{"Setup":3,"Rand":918268251908422838,"Case":{"Blows":[
		{"Op":{"Kind":"open","Path":"A/g","Handle":3,"Flags":1052674}},{"Op":{"Kind":"truncate","Path":"A/g","Len":4096}},
		{"Op":{"Kind":"append","Path":"A/g","Off":1098576,"Len":4585,"Fill":4},"Ill":{"What":"journal full","After":0,"Times":0}}]}}`,
}

func TestFoundStruck(t *testing.T) {
	x := newStruck(t)
	for name, s := range foundStruck {
		if err := x.again(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStruck lets the disk fail while files are open, closed, committed and let go of, in
// little memory, and ends the process in order, too.
func TestStruck(t *testing.T) {
	from := seed.For(t)
	x := newStruck(t)
	if s := os.Getenv(struckEnv); s != "" {
		if err := x.again(s); err != nil {
			t.Error(err)
		}
		return
	}
	begin := time.Now()
	end := begin.Add(long(t))
	for n := uint64(0); n < 60/sample || time.Now().Before(end); n++ {
		p := struckAt(from, n)
		err := x.run(p)
		if err == nil {
			continue
		}
		small, smallErr := x.shrink(p, err)
		t.Fatalf("case %d: %v\nsimpler: %s='%v'\n%v\n%v", x.cases, err, struckEnv, small, small.Case, smallErr)
	}
	t.Logf("%d cases, %d states looked at, %v", x.cases, x.states, time.Since(begin))
}
