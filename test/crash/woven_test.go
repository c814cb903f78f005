package crash

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"skep/test/model"
)

var woven = kind[Woven]{
	env: "SKEP_WOVEN", least: 40, tries: 12, shrink: ShrinkWoven,
	random: func(r *rand.Rand, setup []model.Op) Woven { return Weave(r, setup, 5+r.IntN(40)) },
	run: func(x *Tester, from *Prepared, setup []model.Op, c Woven) error {
		c.Setup = setup
		return x.RunWoven(from, c)
	},
}

func newWoven(t *testing.T) *driver[Woven] {
	t.Helper()
	before := runtime.GOMAXPROCS(1) // see beside
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	return newDriver(t, woven)
}

// TestWovenBroken leaves out flushes of one kind each: it has to be seen soon.
func TestWovenBroken(t *testing.T) {
	x := newWoven(t)
	for _, dir := range []string{"/state/journal", "/files"} {
		x.without = flushOfFile(dir)
		n := uint64(0)
		for n < 200 && x.run(woven.at(1, n)) == nil {
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

func TestFoundWoven(t *testing.T) { newWoven(t).allAgain(t, foundWoven) }

// TestWoven does sequences of operations on few files, some within others.
func TestWoven(t *testing.T) { newWoven(t).search(t) }
