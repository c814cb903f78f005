package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"skep/test/memdisk"
	"skep/test/seed"
)

// wovenEnv, set to a case that was printed, has that done.
const wovenEnv = "SKEP_WOVEN"

// printedWoven is a case as it is printed, to be done again.
type printedWoven struct {
	Setup int // number of what is there before
	Rand  uint64
	Case  Woven
}

func (p printedWoven) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("BUG: crash: %v", err))
	}
	return string(b)
}

// woven does cases.
type woven struct {
	cases, moments, states int
	prepared               []*Prepared
	without                func(memdisk.Event) bool // see Tester
}

func newWoven(t *testing.T) *woven {
	t.Helper()
	before := runtime.GOMAXPROCS(1) // see beside
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	x := &woven{}
	for _, s := range wovenSetups {
		p, err := Prepare(s)
		if err != nil {
			t.Fatal(err)
		}
		x.prepared = append(x.prepared, p)
	}
	return x
}

func (x *woven) run(p printedWoven) error {
	tester := &Tester{Rand: rand.New(rand.NewPCG(p.Rand, 2)), Random: 1, Renew: true, Without: x.without}
	p.Case.Setup = wovenSetups[p.Setup]
	err := tester.RunWoven(x.prepared[p.Setup], p.Case)
	x.cases, x.moments, x.states = x.cases+1, x.moments+tester.Moments, x.states+tester.States
	return err
}

// shrink makes a case simpler. How it crashes is a matter of chance: each is tried a
// few times.
func (x *woven) shrink(p printedWoven, err error) (printedWoven, error) {
	end := time.Now().Add(shrinkTime)
	p.Case = ShrinkWoven(p.Case, func(c Woven) bool {
		for i := uint64(0); i < 12 && time.Now().Before(end); i++ {
			q := printedWoven{p.Setup, p.Rand + i, c}
			if qerr := x.run(q); qerr != nil {
				p.Rand, err = q.Rand, qerr
				return true
			}
		}
		return false
	})
	return p, err
}

// wovenAt is a case at random.
func wovenAt(seed, n uint64) printedWoven {
	r := rand.New(rand.NewPCG(seed, n))
	p := printedWoven{Setup: r.IntN(len(wovenSetups)), Rand: r.Uint64()}
	p.Case = Weave(r, wovenSetups[p.Setup], 5+r.IntN(40))
	return p
}

// TestWovenBroken leaves out flushes of one kind each: it has to be seen soon.
func TestWovenBroken(t *testing.T) {
	x := newWoven(t)
	for _, dir := range []string{"/state/journal", "/files"} {
		x.without = flushOfFile(dir)
		n := uint64(0)
		for n < 200 && x.run(wovenAt(1, n)) == nil {
			n++
		}
		if n == 200 {
			t.Errorf("nobody noticed that %s is not flushed", dir)
		}
		t.Logf("%s: seen in case %d", dir, n)
	}
}

// foundWoven are cases that failed once, each for a reason of its own.
var foundWoven = map[string]string{
	"a gap in the log of the index": `{"Setup":3,"Rand":7418677812446048763,"Case":{"Passthrough":false,"Steps":[
		{"Op":{"Kind":"write","Path":"A/f","Off":1098576,"Len":58270,"Fill":2}},
		{"Op":{"Kind":"commit","Mode":1},"Within":[{"Moment":3,"Op":{"Kind":"truncate","Path":"A/g","Len":16169}}]},
		{"Op":{"Kind":"open","Path":"A/f","Handle":2,"Flags":1053249}},{"Op":{"Kind":"write-to","Len":1480,"Fill":8,"Handle":2}},
		{"Op":{"Kind":"commit","Mode":2}},{"Op":{"Kind":"write","Path":"A/f","Off":1048116,"Len":11679,"Fill":12}},
		{"Op":{"Kind":"open","Path":"A/f","Handle":3,"Flags":66}},{"Op":{"Kind":"fsync-open","Handle":3}},
		{"Op":{"Kind":"write-to","Off":2096985,"Len":2786,"Fill":14,"Handle":2}},
		{"Op":{"Kind":"write-to","Off":1048576,"Len":40706,"Fill":15,"Handle":2}},
		{"Op":{"Kind":"write-to","Off":40130,"Len":4,"Fill":17,"Handle":3}},{"Op":{"Kind":"sync"}}]}}`,
	"cut into by the daemon, then written by the kernel alone": `{"Setup":3,"Rand":6204364082706079219,"Case":{"Passthrough":true,"Steps":[
		{"Op":{"Kind":"open","Path":"n","Handle":2,"Flags":577}},{"Op":{"Kind":"open","Path":"n","Handle":1,"Flags":578}},
		{"Op":{"Kind":"commit","Mode":2},"Within":[{"Moment":3,"Op":{"Kind":"write-to","Off":1098576,"Len":507,"Fill":3,"Handle":1}},
			{"Moment":3,"Op":{"Kind":"punch-open","Off":16384,"Len":12056,"Fill":4,"Handle":2}}]},
		{"Op":{"Kind":"write-to","Off":1048806,"Len":2857,"Fill":5,"Handle":2}}]}}`,
	"closed while a commit flushed it": `{"Setup":1,"Rand":13107045950894430145,"Case":{"Passthrough":true,"Steps":[
		{"Op":{"Kind":"commit","Mode":1,"Name":"that fails"},"Within":[{"Moment":0,"Op":{"Kind":"open","Path":"n","Handle":1,"Flags":577}}]},
		{"Op":{"Kind":"commit"},"Within":[{"Moment":4,"Op":{"Kind":"truncate-open","Len":1048576,"Handle":1}},
			{"Moment":4,"Op":{"Kind":"close","Handle":1}}]}]}}`,
	"written and closed while a commit flushed it": `{"Setup":3,"Rand":99900824830750060,"Case":{"Passthrough":true,"Steps":[
		{"Op":{"Kind":"open","Path":"A/f","Handle":2,"Flags":577}},{"Op":{"Kind":"write-to","Off":1048807,"Len":46,"Fill":2,"Handle":2}},
		{"Op":{"Kind":"commit","Mode":2},"Within":[{"Moment":21,"Op":{"Kind":"write-to","Off":16384,"Len":36,"Fill":3,"Handle":2}},
			{"Moment":21,"Op":{"Kind":"close","Handle":2}}]}]}}`,
	"copied by reference, then outgrew the journal": `{"Setup":3,"Rand":1,"Case":{"Passthrough":true,"Steps":[
		{"Op":{"Kind":"open","Path":"n","Handle":1,"Flags":66}},{"Op":{"Kind":"copy","Path":"A/f","To":"n","Len":1073741824}},
		{"Op":{"Kind":"fsync","Path":"n"}},{"Op":{"Kind":"read","Path":"n","Len":10000}},
		{"Op":{"Kind":"write","Path":"n","Off":17000,"Len":100,"Fill":9}}]}}`,
	"outgrew the journal while all was flushed": `{"Setup":1,"Rand":15187340935417627757,"Case":{"Passthrough":false,"Steps":[
		{"Op":{"Kind":"open","Path":"A/g","Handle":2,"Flags":577}},{"Op":{"Kind":"write-to","Off":37,"Len":1226,"Fill":3,"Handle":2}},
		{"Op":{"Kind":"sync"},"Within":[{"Moment":1,"Op":{"Kind":"write-to","Off":40000,"Len":6,"Fill":4,"Handle":2}}]}]}}`,
}

func TestFoundWoven(t *testing.T) {
	x := newWoven(t)
	for name, s := range foundWoven {
		if err := x.again(s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// again does a case that was printed.
func (x *woven) again(s string) error {
	var p printedWoven
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return err
	}
	if err := x.run(p); err != nil {
		return fmt.Errorf("%v\n%w", p.Case, err)
	}
	return nil
}

// TestWoven does sequences of operations on few files, some within others.
func TestWoven(t *testing.T) {
	from := seed.For(t)
	x := newWoven(t)
	if s := os.Getenv(wovenEnv); s != "" {
		if err := x.again(s); err != nil {
			t.Error(err)
		}
		return
	}
	begin := time.Now()
	end := begin.Add(long(t))
	steps := 0
	for n := uint64(0); n < 40/sample || time.Now().Before(end); n++ {
		p := wovenAt(from, n)
		steps += len(p.Case.Steps)
		err := x.run(p)
		if err == nil {
			continue
		}
		cases := x.cases
		small, smallErr := x.shrink(p, err)
		t.Fatalf("case %d: %v\nsimpler: %s='%v'\n%v\n%v", cases, err, wovenEnv, small, small.Case, smallErr)
	}
	t.Logf("%d cases, %d steps, crashed at %d moments, %d states looked at, %v", x.cases, steps, x.moments, x.states, time.Since(begin))
}
