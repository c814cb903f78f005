package crash

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"skep/test/model"
)

// found are cases that failed once, each for a reason of its own.
var found = map[string]Case{
	"content outgrew the journal": {Setup: setup, Ops: []model.Op{
		{Kind: model.Sync}, {Kind: model.Append, Path: "A/f", Len: 16384, Fill: 12}}},
	"content came back to the journal and left it again": {Passthrough: true, Setup: setup, Ops: []model.Op{
		{Kind: model.Truncate, Path: "A/g", Len: 100}, {Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6}}},
	"written again after a crash": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6}, {Kind: model.Touch, Path: "A/g", Len: 12345}}},
	"a backing file without a name": {Passthrough: true, Setup: setup, Ops: []model.Op{
		{Kind: model.Create, Path: "n"}, {Kind: model.Fsync, Path: "n"}, {Kind: model.Write, Path: "n", Len: 17000, Fill: 8}}},
	"emptied and passed through": {Passthrough: true, Setup: committed, Ops: []model.Op{
		{Kind: model.Create, Path: "n"}, {Kind: model.Fsync, Path: "n"}, {Kind: model.Empty, Path: "A/g"}}},
	"replaced by what was not flushed": {Setup: setup, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Len: 1500, Fill: 5}, {Kind: model.Rename, Path: "A/g", To: "A/f"}}},
	"grown beyond what a commit has": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 39000, Len: 1000, Fill: 3}}},
	"fetched, and changed before a row said so": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Read, Path: "A/g", Len: 100}, {Kind: model.Zero, Path: "A/g", Off: 159, Len: 2686}}},
	"touched, then fetched": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6}, {Kind: model.Touch, Path: "A/g", Len: 12345}, {Kind: model.Read, Path: "A/g", Len: 100}}},
	"so little is left that a commit has it in the record": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Truncate, Path: "A/g", Len: 70}, {Kind: model.Commit}, {Kind: model.Read, Path: "A/g", Len: 100}}},
	"took another's place, then outgrew the journal": {Setup: setup, Ops: []model.Op{
		{Kind: model.Create, Path: "n"}, {Kind: model.Write, Path: "n", Len: 5000, Fill: 7},
		{Kind: model.Rename, Path: "n", To: "A/f"}, {Kind: model.Append, Path: "A/f", Len: 16384, Fill: 12}}},
	"flushed by the kernel alone": {Passthrough: true, Setup: setup, Ops: []model.Op{
		{Kind: model.Open, Path: "n", Flags: os.O_WRONLY | os.O_CREATE | os.O_TRUNC},
		{Kind: model.Write, Path: "n", Len: 5000, Fill: 7, Flags: os.O_SYNC}}},
	"took its own place": {Setup: setup, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 100, Len: 1500, Fill: 5}, {Kind: model.Rename, Path: "A/g", To: "A/g"}, {Kind: model.Create, Path: "n"}}},
	"cut, then appended to": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Truncate, Path: "A/g", Len: 5000}, {Kind: model.Append, Path: "A/g", Len: 100, Fill: 3}}},
	"cut to little, then appended to": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Truncate, Path: "A/g", Len: 200}, {Kind: model.Append, Path: "A/g", Len: 100, Fill: 3}}},
	"cut, then cut to little": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Truncate, Path: "A/g", Len: 2000}, {Kind: model.Truncate, Path: "A/g", Len: 300}}},
	"written anew, cut to that, then grown": {Setup: evicted, Ops: []model.Op{{Kind: model.Write, Path: "A/g", Len: 200, Fill: 4},
		{Kind: model.Truncate, Path: "A/g", Len: 200}, {Kind: model.Truncate, Path: "A/g", Len: 300}}},
	"written anew by a handle, cut to that, then appended to": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR}, {Kind: model.WriteTo, Handle: 1, Len: 200, Fill: 4},
		{Kind: model.TruncateOpen, Handle: 1, Len: 200}, {Kind: model.WriteTo, Handle: 1, Off: 200, Len: 100, Fill: 3}}},
	"fetched and not flushed": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Read, Path: "A/g", Len: 100}, {Kind: model.Sync}}},
}

func TestFound(t *testing.T) {
	for name, c := range found {
		t.Run(name, func(t *testing.T) {
			x := &Tester{Rand: rand.New(rand.NewPCG(1, 1)), Random: 2, Sample: sample, Renew: true}
			if err := x.Run(c); err != nil {
				t.Errorf("%v\n%v", c, err)
			}
		})
	}
}

// foundFaults are cases that failed once when the disk did.
var foundFaults = map[string]Case{
	// An fsync that failed is not made up for by one that succeeds after the next
	// start, on a disk that works again but never got the content.
	"a flush that nobody knows of any more": {Setup: committed, Ops: []model.Op{
		{Kind: model.Write, Path: "A/f", Off: 439, Len: 16413, Fill: 2}, {Kind: model.Commit}, {Kind: model.Fsync, Path: "A/f"}}},
	"cut, and not journalled": {Setup: setup, Ops: []model.Op{{Kind: model.Truncate, Path: "A/g", Len: 44}, {Kind: model.Empty, Path: "A/g"}}},
	"a touch that failed":     {Setup: setup, Ops: []model.Op{{Kind: model.Commit}, {Kind: model.Touch, Path: "A/g", Len: 19724}, {Kind: model.Sync}}},
	"a part that is not here, cut, and not flushed": {Setup: evicted, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 15000, Len: 1500, Fill: 5}, {Kind: model.Truncate, Path: "A/g", Len: 10000}}},
	"grown, and not journalled": {Setup: evicted, Ops: []model.Op{{Kind: model.Write, Path: "A/g", Off: 19000, Len: 5000, Fill: 6}}},
	"written where it was fetched, and not journalled": {Setup: evicted, Ops: []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.ReadFrom, Handle: 1, Len: 1 << 20}, {Kind: model.WriteTo, Handle: 1, Off: 60, Len: 10, Fill: 30}, {Kind: model.Sync}}},
	"a hole in what is not here": {Setup: evicted, Ops: []model.Op{{Kind: model.Punch, Path: "A/g", Off: 4096, Len: 4096}}},
	"a flush that only a commit asked for": {Setup: setup, Ops: []model.Op{
		{Kind: model.Open, Path: "n", Handle: 1, Flags: os.O_WRONLY | os.O_CREATE | os.O_TRUNC},
		{Kind: model.WriteTo, Handle: 1, Len: 20000, Fill: 24}, {Kind: model.Commit}, {Kind: model.Close, Handle: 1}}},
	"a sync after a flush that failed": {Setup: setup, Ops: []model.Op{
		{Kind: model.Write, Path: "A/g", Off: 200, Len: 30, Fill: 43}, {Kind: model.Commit}, {Kind: model.Sync}}},
	"a mark that could not be flushed": {Setup: committed, Ops: []model.Op{{Kind: model.Open, Path: "A/g", Handle: 1, Flags: os.O_RDWR},
		{Kind: model.WriteTo, Handle: 1, Off: 100, Len: 1500, Fill: 21}, {Kind: model.WriteTo, Handle: 1, Off: 10, Len: 300, Fill: 40}}},
	"cut while somebody reads it, and not journalled": {Setup: setup, Ops: []model.Op{
		{Kind: model.Open, Path: "A/g", Handle: 1}, {Kind: model.Truncate, Path: "A/g", Len: 100}, {Kind: model.Commit}}},
	"a full disk that says it has room": {Setup: setup, Ops: []model.Op{
		{Kind: model.Exchange, Path: "A/f", To: "A/g"}, {Kind: model.Commit}, {Kind: model.Commit}}},
}

func TestFoundFaults(t *testing.T) {
	for name, c := range foundFaults {
		t.Run(name, func(t *testing.T) {
			ways := []bool{false}
			if slices.ContainsFunc(c.Ops, func(op model.Op) bool { return op.Kind == model.Open || op.Kind == model.Empty }) {
				ways = []bool{false, true}
			}
			for _, err := range []unix.Errno{unix.EIO, unix.ENOSPC} {
				for _, lasts := range []bool{false, true} {
					for _, c.Passthrough = range ways {
						failEach(t, c, Fault{Lasts: lasts, Err: err})
					}
				}
			}
		})
	}
}

// failEach lets a fault happen at each event of a case.
func failEach(t *testing.T, c Case, f Fault) {
	for met := true; met; f.At += sample {
		x := &Tester{Rand: rand.New(rand.NewPCG(1, 1)), Random: 1}
		var err error
		if met, err = x.RunFault(c, f); err != nil {
			t.Fatalf("%v\n%v: %v", c, f, err)
		}
	}
}

// foundNested are cases that failed once at some moment.
var foundNested = map[string]Nested{
	"deleted while a commit has still to read it": {Setup: setup, Before: dirtyFar, A: model.Op{Kind: model.Commit}, B: []model.Op{
		{Kind: model.Unlink, Path: "A/g"}, {Kind: model.WriteTo, Handle: 1, Off: 40, Len: 300, Fill: 48},
		{Kind: model.WriteTo, Handle: 1, Off: 1<<20 + 200, Len: 300, Fill: 49}}},
	"written when it had lost its name": {Setup: committed, Before: deleted, A: model.Op{Kind: model.WriteTo, Handle: 1, Off: 10, Len: 300, Fill: 40}},
	"let go of while more of it was read": {Setup: large, Full: true, Before: wholeChunk, A: model.Op{Kind: model.ReadFrom, Handle: 1, Off: 50, Len: 1 << 22},
		B: []model.Op{{Kind: model.Commit}, {Kind: model.Evict, Path: "A/g", Name: though}}},
	"closed before what was fetched was recorded": {Setup: large, Before: hereInPart, A: model.Op{Kind: model.Create, Path: "n"},
		B: []model.Op{{Kind: model.Create, Path: "m"}}},
	"renamed while it was cut": {Setup: evicted, Before: []model.Op{{Kind: model.Map, Path: "A/g"}, stored},
		A: model.Op{Kind: model.Truncate, Path: "A/g", Len: 100}, B: []model.Op{{Kind: model.Rename, Path: "A/g", To: "A/f"}}, After: []model.Op{{Kind: model.Sync}}},
	"cut in a full cache": {Setup: evicted, Full: true, A: model.Op{Kind: model.Truncate, Path: "A/g", Len: 100}},
}

func TestFoundNested(t *testing.T) {
	x := newNester(t, 1)
	for name, c := range foundNested {
		t.Run(name, func(t *testing.T) {
			from, err := Prepare(c.Setup)
			if err != nil {
				t.Fatal(err)
			}
			for there := true; there; c.Moment += sample {
				if there, err = x.RunNested(from, c, len(c.B) > 0); err != nil {
					t.Fatalf("%v\n%v", c, err)
				}
			}
		})
	}
}
