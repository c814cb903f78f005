package crash

import (
	"math/rand/v2"
	"os"
	"slices"

	"skep/test/model"
)

// setup is what is there before a case: a small file, whose content is in the
// journal, a larger one, which has a backing file, and an empty directory.
var setup = []model.Op{
	{Kind: model.Mkdir, Path: "A"},
	{Kind: model.Mkdir, Path: "B"},
	{Kind: model.Create, Path: "A/f"},
	{Kind: model.Write, Path: "A/f", Len: 100, Fill: 1},
	{Kind: model.Create, Path: "A/g"},
	{Kind: model.Write, Path: "A/g", Len: 20000, Fill: 2},
}

// committed is the same with a commit that took everything, and evicted with
// the larger file gone from this device.
var (
	committed = append(slices.Clip(setup), model.Op{Kind: model.Commit})
	evicted   = append(slices.Clip(committed), model.Op{Kind: model.Evict, Path: "A/g"})
)

// changes are the operations that pairs are made of.
var changes = []model.Op{
	{Kind: model.Create, Path: "n"},
	{Kind: model.Create, Path: "A/f"},
	{Kind: model.Mkdir, Path: "C"},
	{Kind: model.Symlink, Path: "B/s", To: "nowhere"},
	{Kind: model.Mkfifo, Path: "B/p"},
	{Kind: model.Write, Path: "A/f", Off: 50, Len: 100, Fill: 3},
	{Kind: model.Write, Path: "A/f", Len: 18000, Fill: 4},
	{Kind: model.Write, Path: "A/g", Off: 100, Len: 1500, Fill: 5},
	{Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6},
	{Kind: model.Write, Path: "n", Len: 300, Fill: 7},
	{Kind: model.Write, Path: "n", Len: 17000, Fill: 8},
	{Kind: model.Write, Path: "A/f", Off: 10, Len: 20, Fill: 9, Flags: os.O_SYNC},
	{Kind: model.Write, Path: "A/g", Off: 4000, Len: 200, Fill: 10, Flags: os.O_SYNC},
	{Kind: model.Append, Path: "A/f", Len: 100, Fill: 11},
	{Kind: model.Append, Path: "A/f", Len: 16384, Fill: 12},
	{Kind: model.Append, Path: "A/g", Len: 100, Fill: 13},
	{Kind: model.Truncate, Path: "A/f", Len: 10},
	{Kind: model.Truncate, Path: "A/f", Len: 30000},
	{Kind: model.Truncate, Path: "A/g"},
	{Kind: model.Truncate, Path: "A/g", Len: 100},
	{Kind: model.Truncate, Path: "A/g", Len: 50000},
	{Kind: model.Empty, Path: "A/f"},
	{Kind: model.Empty, Path: "A/g"},
	{Kind: model.Punch, Path: "A/f", Off: 20, Len: 30},
	{Kind: model.Punch, Path: "A/g", Off: 4096, Len: 4096},
	{Kind: model.Zero, Path: "A/g", Off: 18000, Len: 4000},
	{Kind: model.Allocate, Path: "A/g", Off: 20000, Len: 10000},
	{Kind: model.Store, Path: "A/g", Off: 100, Len: 300, Fill: 14},
	{Kind: model.Link, Path: "A/f", To: "B/l"},
	{Kind: model.Link, Path: "A/g", To: "n"},
	{Kind: model.Unlink, Path: "A/f"},
	{Kind: model.Unlink, Path: "A/g"},
	{Kind: model.Rmdir, Path: "B"},
	{Kind: model.Rename, Path: "A/f", To: "A/g"},
	{Kind: model.Rename, Path: "A/g", To: "A/f"},
	{Kind: model.Rename, Path: "n", To: "A/f"},
	{Kind: model.Rename, Path: "A/f", To: "B/n"},
	{Kind: model.Rename, Path: "A/g", To: "n"},
	{Kind: model.Rename, Path: "A", To: "C"},
	{Kind: model.Rename, Path: "A", To: "B"},
	{Kind: model.Exchange, Path: "A/f", To: "A/g"},
	{Kind: model.Exchange, Path: "A", To: "B"},
	{Kind: model.SetXattr, Path: "A/f", Name: "user.x", Len: 10, Fill: 15},
	{Kind: model.SetXattr, Path: "A/g", Name: "user.x", Len: 3000, Fill: 16},
	{Kind: model.Map, Path: "A/g"},
	stored,
	{Kind: model.Unmap, Path: "A/g"},
	{Kind: model.Chmod, Path: "A/g", Mode: 0o600},
	{Kind: model.Touch, Path: "A/g", Len: 12345},
	{Kind: model.Read, Path: "A/g", Len: 20000},
	{Kind: model.Copy, Path: "A/f", To: "A/g", Off: 19950, Len: 100},
	{Kind: model.Copy, Path: "A/g", To: "A/f", Off: 50, Len: 18000},
	{Kind: model.Copy, Path: "A/g", To: "n", Len: 50000},
	{Kind: model.Commit},
	{Kind: model.Evict, Path: "A/g"},
	{Kind: model.Forget},
}

// stored is a store into a mapping of A/g, whatever its path is by then.
var stored = model.Op{Kind: model.StoreMapped, Path: "A/g", Off: 200, Len: 300, Fill: 18, Flags: os.O_SYNC}

// mapped leaves a mapping of A/g, which the kernel alone may write, and no handle.
var mapped = []model.Op{{Kind: model.Open, Path: "A/g", Flags: os.O_RDWR | os.O_TRUNC}, {Kind: model.WriteTo, Len: 18000, Fill: 19},
	{Kind: model.Map}, {Kind: model.Close}}

// pairsOf returns all pairs that an operation begins, with and without a flush
// between and after them, and with a new small file that nobody flushed; and those
// that a mapping begins, with a store into it at the end.
func pairsOf(a model.Op) func(yield func(Case) bool) {
	return func(yield func(Case) bool) {
		for _, b := range changes {
			if !pair(a, b, yield) {
				return
			}
		}
	}
}

func pair(a, b model.Op, yield func(Case) bool) bool {
	a2, b2 := flushOf(a), flushOf(b)
	fresh := []model.Op{{Kind: model.Create, Path: "n"}, {Kind: model.Write, Path: "n", Len: 5000, Fill: 17}}
	all := [][]model.Op{{a, b, b2}, {a, a2, b}, {a, {Kind: model.Sync}, b, b2}, append(fresh, a, b)}
	if a.Kind == model.Map {
		all = append(all, []model.Op{a, b, stored, a2}, append(slices.Clip(mapped), b, stored), append(slices.Clip(mapped), a2, b, stored))
	}
	for _, ops := range all {
		for _, before := range [][]model.Op{setup, committed, evicted} {
			for _, pass := range []bool{false, true} {
				if !yield(Case{Passthrough: pass, Setup: before, Ops: ops}) {
					return false
				}
			}
		}
	}
	return true
}

// flushOf is what a program would flush after an operation.
func flushOf(op model.Op) model.Op {
	switch op.Kind {
	case model.Mkdir, model.Rmdir, model.Unlink, model.Mkfifo, model.Symlink:
		dir, _ := model.Split(op.Path)
		return model.Op{Kind: model.SyncDir, Path: dir}
	case model.Copy:
		return model.Op{Kind: model.Fsync, Path: op.To}
	case model.Link, model.Rename, model.Exchange:
		dir, _ := model.Split(op.To)
		return model.Op{Kind: model.SyncDir, Path: dir}
	}
	return model.Op{Kind: model.Fsync, Path: op.Path}
}

// Random makes a longer case: paths and open files, commits and evictions,
// and a journal that is cut short.
func Random(r *rand.Rand) Case {
	g := &model.Generator{Rand: r, Dirs: []string{"", "A", "B", "A/f"}, Names: []string{"f", "g", "n"},
		Sizes: []int64{100, 5000, 16384, 20000, 40000}, Handles: 3, Flush: true,
		Maintenance: map[model.Kind]int{model.Commit: 10, model.Evict: 12, model.Forget: 20}}
	c := Case{Passthrough: r.IntN(2) == 0, Setup: [][]model.Op{setup, committed, evicted}[r.IntN(3)]}
	for range 3 + r.IntN(12) {
		c.Ops = append(c.Ops, g.Next())
	}
	return c
}
