package crash

import (
	"math/rand/v2"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"skep/test/model"
)

// weave makes Wovens of a few files that are opened in all ways, most of them written
// by the kernel alone.
type weave struct {
	r    *rand.Rand
	fill byte
	open [weaveHandles + 1]bool // whether the handle is likely to be open
	path string                 // that most operations are on for a while
	hand int                    // likewise

	outer, inner, quiet map[model.Kind]int // weights: see some
}

// weaveHandles is how many files are open at most, with the handles from 1 on.
const weaveHandles = 3

var wovenPaths = []string{"A/f", "A/g", "n"}

// wovenWeights say how often each kind of operation is made.
var wovenWeights = map[model.Kind]int{
	model.Open: 14, model.Close: 8, model.WriteTo: 18, model.TruncateOpen: 3, model.PunchOpen: 2, model.StoreTo: 2,
	model.FsyncOpen: 5, model.ReadFrom: 3, model.Write: 3, model.Append: 1, model.Truncate: 2, model.Allocate: 2, model.Zero: 1,
	model.Empty: 1, model.Create: 1, model.Copy: 3, model.Rename: 3, model.Unlink: 1, model.Read: 4, model.Fsync: 3,
	model.Sync: 8, model.Commit: 18, model.Evict: 6, model.Forget: 1, model.Restart: 1,
}

// innerWeights are those of operations within one that changes nothing.
var innerWeights = map[model.Kind]int{
	model.Open: 6, model.Close: 14, model.WriteTo: 30, model.TruncateOpen: 7, model.PunchOpen: 3, model.StoreTo: 2,
	model.FsyncOpen: 6, model.ReadFrom: 1, model.Write: 2, model.Append: 1, model.Truncate: 3, model.Allocate: 3,
	model.Empty: 1, model.Copy: 2, model.Rename: 3, model.Unlink: 2, model.Read: 1, model.Fsync: 2, model.Sync: 3, model.Commit: 4,
	model.Evict: 2,
}

// quietWeights are of those that change nothing and depend on no path, within others.
var quietWeights = map[model.Kind]int{
	model.Commit: 8, model.Sync: 3, model.Evict: 2, model.FsyncOpen: 4, model.Close: 3, model.Forget: 1,
}

func (g *weave) kind(weights map[model.Kind]int) model.Kind {
	total := 0
	for _, n := range weights {
		total += n
	}
	x := g.r.IntN(total)
	for k := model.Create; ; k++ {
		if x -= weights[k]; x < 0 {
			return k
		}
	}
}

// some makes some kinds of operations rare or frequent in a case, and leaves out others:
// what takes several of one kind in a row would hardly ever come up else.
func (g *weave) some(weights map[model.Kind]int) map[model.Kind]int {
	out := map[model.Kind]int{}
	for k := model.Create; k <= model.Restart; k++ {
		if weights[k] > 0 {
			out[k] = weights[k] * of(g.r, 0, 1, 2, 2, 8)
		}
	}
	for _, k := range []model.Kind{model.Open, model.WriteTo, model.Commit} {
		if weights[k] > 0 {
			out[k] = max(out[k], weights[k])
		}
	}
	return out
}

// of picks one.
func of[T any](r *rand.Rand, all ...T) T { return all[r.IntN(len(all))] }

// Weave makes a case of so many steps.
func Weave(r *rand.Rand, setup []model.Op, steps int) Woven {
	g := &weave{r: r}
	g.outer, g.inner, g.quiet = g.some(wovenWeights), g.some(innerWeights), g.some(quietWeights)
	c := Woven{Passthrough: r.IntN(8) > 0, Setup: setup}
	for range steps {
		c.Steps = append(c.Steps, g.step())
	}
	return c
}

func (g *weave) step() Step {
	if g.path == "" || g.r.IntN(8) == 0 {
		g.path, g.hand = of(g.r, wovenPaths...), 1+g.r.IntN(weaveHandles)
	}
	s := Step{Op: g.op(g.outer)}
	if s.Op.Kind == model.Restart {
		g.open = [weaveHandles + 1]bool{}
		return s
	}
	often := 4
	if isQuiet(s.Op) {
		often = 2
	}
	if g.r.IntN(often) > 0 {
		return s
	}
	weights := g.quiet
	if isQuiet(s.Op) && s.Op.Kind != model.Read && s.Op.Kind != model.ReadFrom { // these tell what they found
		weights = g.inner
	}
	kinds := make([]model.Kind, 1+g.r.IntN(3))
	for i := range kinds {
		kinds[i] = g.kind(weights)
	}
	at, apart := g.r.IntN(of(g.r, 4, 10, 25)), of(g.r, 1, 4, 10, 25)
	if weights[model.WriteTo] > 0 && g.r.IntN(3) == 0 {
		kinds, apart = of(g.r, bursts...), 1
	}
	for i, kind := range kinds {
		if i > 0 {
			at += g.r.IntN(apart)
		}
		if op := g.make(kind, weights); op.Kind != model.Restart && !s.uses(op) {
			s.Within = append(s.Within, Inner{at, op})
		}
	}
	return s
}

// bursts are what programs do with a file one after the other.
var bursts = [][]model.Kind{{model.WriteTo, model.Close}, {model.TruncateOpen, model.WriteTo}, {model.PunchOpen, model.WriteTo, model.Close},
	{model.WriteTo, model.FsyncOpen, model.WriteTo}, {model.Close, model.Open, model.WriteTo}, {model.Close, model.Rename}}

// uses reports whether an operation within the step would open or close a handle that
// the step uses, or use one that it opens or closes.
func (s Step) uses(op model.Op) bool {
	ends := func(o model.Op) bool { return o.Kind == model.Open || o.Kind == model.Close }
	return s.Op.Handle != 0 && s.Op.Handle == op.Handle && (ends(s.Op) || ends(op))
}

func (g *weave) op(weights map[model.Kind]int) model.Op { return g.make(g.kind(weights), weights) }

// make makes an operation, one of a kind or an Open if no file is likely to be open.
func (g *weave) make(kind model.Kind, weights map[model.Kind]int) model.Op {
	r := g.r
	op := model.Op{Kind: kind}
	switch op.Kind {
	case model.Open, model.Close, model.WriteTo, model.TruncateOpen, model.PunchOpen, model.StoreTo, model.FsyncOpen, model.ReadFrom:
		if op.Kind != model.Open && weights[model.Open] > 0 && !slices.Contains(g.open[:], true) {
			op.Kind = model.Open
		}
		op.Handle = g.handle(op.Kind == model.Open)
	}
	if op.Kind == model.Open || op.Kind == model.Close {
		g.open[op.Handle] = op.Kind == model.Open
	}
	switch op.Kind {
	case model.Close, model.FsyncOpen, model.WriteTo, model.TruncateOpen, model.PunchOpen, model.StoreTo, model.ReadFrom, model.Sync, model.Forget, model.Restart:
	default:
		op.Path = g.somePath()
	}
	switch op.Kind {
	case model.Open:
		op.Flags = g.flags()
	case model.WriteTo, model.StoreTo, model.Write, model.Append, model.PunchOpen, model.Allocate, model.Zero:
		op.Off, op.Len = g.offset(), g.length()
		g.fill++
		op.Fill = g.fill
		if op.Kind == model.Write && r.IntN(6) == 0 {
			op.Flags = os.O_SYNC
		}
	case model.TruncateOpen, model.Truncate:
		op.Len = g.offset()
	case model.Read, model.ReadFrom:
		op.Off, op.Len = g.offset(), g.length()
		if r.IntN(2) == 0 {
			op.Off, op.Len = 0, 1<<23
		}
	case model.Copy:
		op.To, op.Len = of(r, wovenPaths...), 1<<30
	case model.Rename:
		op.To = of(r, wovenPaths...)
	case model.Commit:
		op.Path, op.Mode = "", uint32(r.IntN(3))
		if r.IntN(5) == 0 {
			op.Name = fails
		}
	case model.Evict:
		if op.Name = of(r, "", though, all); op.Name == all {
			op.Path = ""
		}
	}
	return op
}

// handle picks one: mostly one that is free, or one that is open.
func (g *weave) handle(free bool) int {
	h := g.hand
	if g.open[h] == free || g.r.IntN(4) == 0 {
		h = 1 + g.r.IntN(weaveHandles)
	}
	for range weaveHandles {
		if g.open[h] == free && g.r.IntN(10) > 0 {
			h = h%weaveHandles + 1
		}
	}
	return h
}

// somePath picks one.
func (g *weave) somePath() string {
	if g.r.IntN(3) > 0 {
		return g.path
	}
	return of(g.r, wovenPaths...)
}

func (g *weave) flags() int {
	if g.r.IntN(3) == 0 { // what the kernel writes alone
		return os.O_WRONLY | os.O_CREATE | os.O_TRUNC
	}
	return of(g.r, os.O_RDONLY, os.O_RDONLY, os.O_RDWR, os.O_WRONLY, os.O_RDWR|os.O_CREATE, os.O_WRONLY|os.O_CREATE|os.O_TRUNC,
		os.O_RDWR|os.O_CREATE|os.O_TRUNC, os.O_RDWR|os.O_CREATE|os.O_EXCL,
		os.O_WRONLY|os.O_CREATE|os.O_EXCL, os.O_WRONLY|os.O_APPEND, os.O_RDWR|unix.O_SYNC, os.O_WRONLY|os.O_CREATE|os.O_TRUNC|unix.O_SYNC)
}

// offset is one at an edge, or behind it.
func (g *weave) offset() int64 {
	n := of[int64](g.r, 0, 0, 100, 4096, 16384, 19000, 40000, 1<<20, 1<<20+50000, 2<<20)
	return max(0, n+of(g.r, 0, int64(g.r.IntN(500)), -int64(g.r.IntN(500))))
}

func (g *weave) length() int64 {
	return 1 + int64(g.r.IntN(of(g.r, 50, 1500, 5000, 20000, 70000)))
}

// wovenSetups are what is there before.
var wovenSetups = [][]model.Op{setup, committed, evicted, slices.Concat(setup,
	[]model.Op{{Kind: model.Write, Path: "A/f", Len: 5000, Fill: 60}, {Kind: model.Write, Path: "A/g", Off: 20000, Len: 1 << 20, Fill: 61},
		{Kind: model.Commit}, {Kind: model.Evict, Path: "A/f"}, {Kind: model.Evict, Path: "A/g"}})}
