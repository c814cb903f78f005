package crash

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"skep/test/model"
	"skep/test/seed"
)

// nestedEnv, set to a name or to a part of some, has just those families done; set to a
// case that was printed, that one.
const nestedEnv = "SKEP_NESTED"

// large is a drive with a file of several chunks, none of which is here.
var large = append(slices.Clip(setup),
	model.Op{Kind: model.Write, Path: "A/g", Off: 20000, Len: 2 << 20, Fill: 20},
	model.Op{Kind: model.Commit},
	model.Op{Kind: model.Evict, Path: "A/g"})

type named struct {
	name string
	ops  []model.Op
}

var setups = []named{{"new", setup}, {"committed", committed}, {"evicted", evicted}, {"large", large}}

const create = os.O_CREATE | os.O_TRUNC

// states are what was done to files before, with handles that stay open, and
// nothing flushed.
var states = []named{
	{"nothing", nil},
	{"reader", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1}}},
	{"open", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR}}},
	{"dirty", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.WriteTo, Handle: 1, Off: 100, Len: 1500, Fill: 21}}},
	{"dirty far", dirtyFar},
	{"here in part", hereInPart},
	{"a whole chunk", wholeChunk},
	{"small", []model.Op{{Kind: model.Open, Path: "A/f", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.WriteTo, Handle: 1, Len: 5000, Fill: 22}}},
	{"append", []model.Op{{Kind: model.Open, Path: "A/f", Handle: 1, Flags: os.O_RDWR | os.O_APPEND}}},
	{"sync", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR | os.O_SYNC}}},
	{"fresh", []model.Op{{Kind: model.Open, Path: "n", Handle: 1, Flags: os.O_RDWR | os.O_CREATE},
		{Kind: model.WriteTo, Handle: 1, Len: 5000, Fill: 23}}},
	{"passed", []model.Op{{Kind: model.Open, Path: "n", Handle: 1, Flags: os.O_WRONLY | create},
		{Kind: model.WriteTo, Handle: 1, Len: 20000, Fill: 24}}},
	{"replaced", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_WRONLY | os.O_TRUNC},
		{Kind: model.WriteTo, Handle: 1, Len: 18000, Fill: 25}, {Kind: model.Open, Path: "A/g", Handle: 2}}},
	{"deleted", deleted},
	{"nameless", []model.Op{{Kind: model.Tmpfile, Handle: 1}, {Kind: model.WriteTo, Handle: 1, Len: 5000, Fill: 26}}},
	{"not taken", []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_WRONLY | os.O_TRUNC},
		{Kind: model.WriteTo, Handle: 1, Len: 1200000, Fill: 27}, {Kind: model.Commit, Name: fails}}},
	{"mapped", append(slices.Clip(mapped), stored)},
	{"mapped through the daemon", []model.Op{{Kind: model.Map, Path: "A/g"}, stored}},
	{"two names", []model.Op{{Kind: model.Link, Path: "A/g", To: "B/l"}, {Kind: model.Open, Path: "B/l", Handle: 1, Flags: os.O_RDWR}}},
}

var (
	dirtyFar = []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.WriteTo, Handle: 1, Off: 1<<20 + 100, Len: 1500, Fill: 28}}
	hereInPart = []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.ReadFrom, Handle: 1, Off: 1 << 20, Len: 100}, {Kind: model.WriteTo, Handle: 1, Off: 1<<20 + 50, Len: 1500, Fill: 29}}
	wholeChunk = []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.WriteTo, Handle: 1, Off: 2 << 20, Len: 1 << 20, Fill: 53}}
	deleted = []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR}, {Kind: model.Unlink, Path: "A/g"}}
)

// within are the operations that are done within each other.
var within = []model.Op{
	{Kind: model.Create, Path: "n"},
	{Kind: model.Write, Path: "A/f", Off: 50, Len: 100, Fill: 3},
	{Kind: model.Write, Path: "A/f", Off: 80, Len: 18000, Fill: 4},
	{Kind: model.Write, Path: "A/g", Off: 100, Len: 1500, Fill: 5},
	{Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6},
	{Kind: model.Write, Path: "n", Off: 4900, Len: 17000, Fill: 8},
	{Kind: model.Write, Path: "A/g", Off: 4000, Len: 200, Fill: 10, Flags: os.O_SYNC},
	{Kind: model.WriteTo, Handle: 1, Off: 10, Len: 300, Fill: 11},
	{Kind: model.WriteTo, Handle: 1, Off: 4000, Len: 20000, Fill: 12},
	{Kind: model.StoreTo, Handle: 1, Off: 20, Len: 40, Fill: 13},
	{Kind: model.StoreMapped, Off: 250, Len: 100, Fill: 51},
	{Kind: model.LoadMapped, Off: 50, Len: 1 << 22},
	{Kind: model.Unmap},
	{Kind: model.TruncateOpen, Handle: 1, Len: 90},
	{Kind: model.PunchOpen, Handle: 1, Off: 4096, Len: 4096},
	{Kind: model.Truncate, Path: "A/f", Len: 30000},
	{Kind: model.Truncate, Path: "A/g", Len: 100},
	{Kind: model.Truncate, Path: "A/g", Len: 50000},
	{Kind: model.Empty, Path: "A/f"},
	{Kind: model.Empty, Path: "A/g"},
	{Kind: model.Fsync, Path: "A/f"},
	{Kind: model.Fsync, Path: "A/g"},
	{Kind: model.FsyncOpen, Handle: 1},
	{Kind: model.SyncDir},
	{Kind: model.Sync},
	{Kind: model.Rename, Path: "n", To: "A/f"},
	{Kind: model.Rename, Path: "A/g", To: "A/f"},
	{Kind: model.Rename, Path: "A/f", To: "n"},
	{Kind: model.Exchange, Path: "A/f", To: "A/g"},
	{Kind: model.Link, Path: "A/g", To: "B/k"},
	{Kind: model.LinkOpen, Handle: 1, To: "B/t"},
	{Kind: model.Unlink, Path: "A/g"},
	{Kind: model.Unlink, Path: "n"},
	{Kind: model.Chmod, Path: "A/g", Mode: 0o600},
	{Kind: model.SetXattr, Path: "A/g", Name: "user.x", Len: 10, Fill: 15},
	{Kind: model.Read, Path: "A/g", Len: 1 << 22},
	{Kind: model.ReadFrom, Handle: 1, Off: 50, Len: 1 << 22},
	{Kind: model.Copy, Path: "A/g", To: "A/f", Len: 1 << 30},
	{Kind: model.Close, Handle: 1},
	{Kind: model.Commit},
	{Kind: model.Commit, Name: fails},
	{Kind: model.Evict, Path: "A/g"},
	{Kind: model.Evict, Path: "A/g", Name: though},
	{Kind: model.Evict, Name: all},
	{Kind: model.Forget},
}

// both are operations that happen one after the other within another.
var both = [][]model.Op{
	{{Kind: model.WriteTo, Handle: 1, Off: 10, Len: 300, Fill: 40}, {Kind: model.Close, Handle: 1}},
	{{Kind: model.Empty, Path: "A/g"}, {Kind: model.Write, Path: "A/g", Len: 18000, Fill: 41}},
	{{Kind: model.Write, Path: "A/g", Off: 100, Len: 30, Fill: 42}, {Kind: model.Fsync, Path: "A/g"}},
	{{Kind: model.Write, Path: "A/g", Off: 200, Len: 30, Fill: 43}, {Kind: model.Commit}},
	{{Kind: model.Write, Path: "A/f", Off: 300, Len: 18000, Fill: 44}, {Kind: model.Truncate, Path: "A/f", Len: 5000}},
	{{Kind: model.Truncate, Path: "A/g", Len: 700}, {Kind: model.Truncate, Path: "A/g", Len: 20000}},
	{{Kind: model.Commit}, {Kind: model.Evict, Path: "A/g", Name: though}},
	{{Kind: model.Evict, Path: "A/g", Name: though}, {Kind: model.Read, Path: "A/g", Len: 1 << 22}},
	{{Kind: model.Commit}, {Kind: model.Evict, Name: all}},
	{{Kind: model.Unlink, Path: "A/g"}, {Kind: model.Create, Path: "A/g"}},
	{{Kind: model.Open, Path: "A/g", Handle: 3, Flags: os.O_WRONLY | os.O_TRUNC}, {Kind: model.WriteTo, Handle: 3, Len: 400, Fill: 45}},
	{{Kind: model.Open, Path: "A/g", Handle: 3}},
	{{Kind: model.Unlink, Path: "A/g"}, {Kind: model.WriteTo, Handle: 1, Off: 40, Len: 300, Fill: 48}, {Kind: model.WriteTo, Handle: 1, Off: 1<<20 + 200, Len: 300, Fill: 49}},
	{{Kind: model.WriteTo, Handle: 1, Off: 30, Len: 300, Fill: 46}, {Kind: model.WriteTo, Handle: 1, Off: 1100000, Len: 300, Fill: 47}},
}

// afters are what is done when both are over.
var afters = []named{
	{"crash", nil},
	{"fsync", []model.Op{{Kind: model.FsyncOpen, Handle: 1}}},
	{"sync", []model.Op{{Kind: model.Sync}}},
	{"evict", away},
	{"store", []model.Op{{Kind: model.StoreMapped, Off: 150, Len: 100, Fill: 52}, {Kind: model.Commit}, {Kind: model.Evict, Path: "A/g", Name: though},
		{Kind: model.LoadMapped, Len: 1 << 22}, {Kind: model.Unmap}, {Kind: model.Evict, Path: "A/g"}}},
	{"fail", append([]model.Op{{Kind: model.Commit, Name: fails}}, away...)},
	{"stay", []model.Op{{Kind: model.Commit}, {Kind: model.Evict, Path: "A/g", Name: though}, {Kind: model.ReadFrom, Handle: 1, Len: 1 << 22},
		{Kind: model.WriteTo, Handle: 1, Off: 60, Len: 10, Fill: 30}, {Kind: model.Commit}, {Kind: model.Evict, Path: "A/g", Name: though}}},
}

// away has all content go.
var away = []model.Op{{Kind: model.Close, Handle: 1}, {Kind: model.Commit}, {Kind: model.Evict, Path: "A/f"}, {Kind: model.Evict, Path: "A/g"},
	{Kind: model.Evict, Path: "n"}, {Kind: model.Evict, Path: "B/t"}, {Kind: model.Evict, Path: "B/l"}}

// family is all cases that differ in the moment alone.
type family struct {
	setup, state, after named
	way                 string
	a                   model.Op
	b                   []model.Op
	seconds             string // of b: there are many families to be looked through
}

func (f family) at(moment int) Nested {
	return Nested{Passthrough: f.way == "passed", Full: f.way == "full", Setup: f.setup.ops, Before: f.state.ops, A: f.a, B: f.b, Moment: moment, After: f.after.ops}
}

func (f family) String() string {
	return strings.Join([]string{f.setup.name, f.way, f.state.name, f.a.String(), f.seconds, f.after.name}, "|")
}

// seconds are what is done within.
var seconds = func() [][]model.Op {
	out := slices.Clone(both)
	for _, op := range within {
		out = append(out, []model.Op{op})
	}
	return out
}()

var secondNames = func() (out []string) {
	for _, ops := range seconds {
		out = append(out, fmt.Sprint(ops))
	}
	return out
}()

var ways = []string{"daemon", "passed", "full"}

// familyAt is the one with a number below allFamilies.
func familyAt(i int) family {
	next := func(n int) int {
		x := i % n
		i /= n
		return x
	}
	f := family{setup: setups[next(len(setups))], state: states[next(len(states))], after: afters[next(len(afters))],
		way: ways[next(len(ways))], a: within[next(len(within))]}
	second := next(len(seconds))
	f.b, f.seconds = seconds[second], secondNames[second]
	return f
}

var allFamilies = len(setups) * len(states) * len(afters) * len(ways) * len(within) * len(seconds)

// families are those whose name has a part, or, without one, an endless number at
// random, few of which are large.
func families(r *rand.Rand, part string) func(yield func(family) bool) {
	return func(yield func(family) bool) {
		for i := 0; part == "" || i < allFamilies; i++ {
			n := i
			if part == "" {
				n = r.IntN(allFamilies)
			}
			f := familyAt(n)
			if !f.makesSense() || !strings.Contains(f.String(), part) || part == "" && f.setup.name == "large" && i%8 > 0 {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// makesSense leaves out what needs a handle or a mapping that is not there, or ends one
// that is in use.
func (f family) makesSense() bool {
	uses := func(op model.Op) bool { return op.Handle == 1 }
	if f.state.ops == nil && (uses(f.a) || slices.ContainsFunc(f.b, uses) || f.after.name == "fsync" || f.after.name == "stay") {
		return false
	}
	ofMapping := func(op model.Op) bool {
		return op.Kind == model.StoreMapped || op.Kind == model.LoadMapped || op.Kind == model.Unmap
	}
	if !strings.HasPrefix(f.state.name, "mapped") && (ofMapping(f.a) || slices.ContainsFunc(f.b, ofMapping) || f.after.name == "store") {
		return false
	}
	if f.a.Kind == model.Copy { // it reads, and then it writes
		return false
	}
	return f.mayEnd(model.Close, uses) && f.mayEnd(model.Unmap, ofMapping)
}

// mayEnd reports whether an operation that ends something comes beside none that
// uses it.
func (f family) mayEnd(kind model.Kind, uses func(model.Op) bool) bool {
	ends := func(op model.Op) bool { return op.Kind == kind }
	if ends(f.a) {
		return !slices.ContainsFunc(f.b, uses)
	}
	return !uses(f.a) || !slices.ContainsFunc(f.b, ends)
}

// nester does families of cases.
type nester struct {
	Tester
	prepared map[string]*Prepared
	quick    bool
}

func newNester(t *testing.T, from uint64) *nester {
	t.Helper()
	before := runtime.GOMAXPROCS(1) // see beside
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	x := &nester{Tester: Tester{Rand: rand.New(rand.NewPCG(from, 0)), Random: 1, Renew: true}, prepared: map[string]*Prepared{}}
	for _, s := range setups {
		p, err := Prepare(s.ops)
		if err != nil {
			t.Fatal(err)
		}
		x.prepared[s.name] = p
	}
	return x
}

// printed is a case as it is printed, to be done again.
type printed struct {
	Setup string // its name
	Case  Nested
}

func (p printed) String() string {
	b, err := json.Marshal(p)
	if err != nil {
		panic(fmt.Sprintf("BUG: crash: %v", err))
	}
	return string(b)
}

// parsePrinted reads a case that was printed.
func parsePrinted(s string) (p printed, err error) {
	if err := json.Unmarshal([]byte(s), &p); err != nil {
		return p, err
	}
	i := slices.IndexFunc(setups, func(n named) bool { return n.name == p.Setup })
	if i < 0 {
		return p, fmt.Errorf("nothing is called %q that is there before", p.Setup)
	}
	p.Case.Setup = setups[i].ops
	return p, nil
}

// all does a family at every moment. A case that fails is made simpler.
func (x *nester) all(f family) error {
	c, err := x.everywhere(printed{f.setup.name, f.at(0)})
	if err == nil {
		return nil
	}
	small, smallErr := x.shrink(c, err)
	return fmt.Errorf("%s=%q\n%v\n%w\nsimpler: %s='%v'\n%v\n%w", nestedEnv, f, c.Case, err, nestedEnv, small, small.Case, smallErr)
}

// everywhere does a case at every moment, and returns the first that fails.
func (x *nester) everywhere(p printed) (printed, error) {
	for p.Case.Moment = 0; ; p.Case.Moment++ {
		there, err := x.RunNested(x.prepared[p.Setup], p.Case, x.quick)
		if !there || err != nil {
			return p, err
		}
	}
}

// shrinkTime is for how long a case is made simpler.
const shrinkTime = 2 * time.Minute

// shrink makes a case simpler that failed. If it needs no crash to fail again, quick
// ones are enough; else each is crashed at every moment.
func (x *nester) shrink(p printed, err error) (printed, error) {
	quick, end := x.quick, time.Now().Add(shrinkTime)
	defer func() { x.quick = quick }()
	x.quick = true
	q, qerr := x.everywhere(p)
	if x.quick = qerr != nil; x.quick {
		p, err = q, qerr
	}
	p.Case.Shrink(func(c Nested) bool {
		if time.Now().After(end) {
			return false
		}
		q, qerr := x.everywhere(printed{p.Setup, c})
		if qerr != nil {
			p, err = q, qerr
		}
		return qerr != nil
	})
	return p, err
}

// thorough is how many families come to one that is crashed at every moment, where
// there is time.
const thorough = 20

// TestNested has one operation happen at each moment of another.
func TestNested(t *testing.T) {
	from, part := seed.For(t), os.Getenv(nestedEnv)
	x := newNester(t, from)
	if strings.HasPrefix(part, "{") {
		p, err := parsePrinted(part)
		if err == nil {
			p, err = x.everywhere(p)
		}
		if err != nil {
			t.Errorf("%v\n%v", p.Case, err)
		}
		return
	}
	end := time.Now().Add(long(t))
	n, failed := 0, 0
	for f := range families(x.Rand, part) {
		if n++; n > 40/sample && part == "" && time.Now().After(end) || failed > 10 {
			break
		}
		x.quick = long(t) == 0 || n%thorough > 0
		if err := x.all(f); err != nil {
			t.Errorf("%v", err)
			failed++
		}
	}
	t.Logf("%d cases, crashed at %d moments, %d states looked at", x.Cases, x.Moments, x.States)
}

// TestHandleFaults lets the disk fail while handles are open.
func TestHandleFaults(t *testing.T) {
	from := seed.For(t)
	x := &Tester{Rand: rand.New(rand.NewPCG(from, 0)), Random: 1}
	end := time.Now().Add(long(t))
	for i := 0; i < 12 || time.Now().Before(end); i++ {
		f := familyAt(x.Rand.IntN(allFamilies))
		if !f.makesSense() || f.setup.name == "large" {
			continue
		}
		c := Case{Passthrough: f.way == "passed", Setup: f.setup.ops, Ops: slices.Concat(f.state.ops, f.b, f.after.ops)}
		if err := x.Faults(c, x.Rand, 3); err != nil {
			t.Errorf("%v\n%v", c, err)
		}
	}
	t.Logf("%d cases", x.Cases)
}
