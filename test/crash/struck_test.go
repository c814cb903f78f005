package crash

import (
	"math/rand/v2"
	"testing"

	"skep/test/model"
)

var struck = kind[Struck]{
	env: "SKEP_STRUCK", least: 60, tries: 8, shrink: ShrinkStruck,
	random: func(r *rand.Rand, setup []model.Op) Struck { return Strike(r, setup, 4+r.IntN(25)) },
	run: func(x *Tester, from *Prepared, setup []model.Op, c Struck) error {
		c.Setup = setup
		return x.RunStruck(from, c)
	},
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

func TestFoundStruck(t *testing.T) { newDriver(t, struck).allAgain(t, foundStruck) }

// TestStruck lets the disk fail while files are open, closed, committed and let go of, in
// little memory, and ends the process in order, too.
func TestStruck(t *testing.T) { newDriver(t, struck).search(t) }
