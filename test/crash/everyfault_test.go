package crash

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/state"
	"skep/test/memdisk"
)

// tables is a store on a disk in memory, and what it held after each batch.
type tables struct {
	t      *testing.T
	disk   *memdisk.Disk
	s      *state.Store
	rows   map[string]string
	after  map[uint64]map[string]string // by the number of the batch
	synced uint64
}

func tablesOptions(d *memdisk.Disk) state.Options {
	return state.Options{Disk: d, Index: openIndex(d), OverlaySize: 4 << 10, SegmentSize: 16 << 10}
}

// apply applies a batch of rows, some of them patched. One that fails may be there in
// the end, unless another takes its number.
func (x *tables) apply(r *rand.Rand, n int) {
	var b state.Batch
	rows := maps.Clone(x.rows)
	for range n {
		k, v := fmt.Sprintf("%02d", r.IntN(60)), strings.Repeat(fmt.Sprint(r.IntN(10)), 20+r.IntN(80))
		if old := rows[k]; r.IntN(3) == 0 && len(old) > len(v) {
			b.Patch([]byte(k), 1, []byte(v))
			rows[k] = old[:1] + v + old[min(len(old), 1+len(v)):]
		} else {
			b.Put([]byte(k), []byte(v))
			rows[k] = v
		}
	}
	x.after[x.s.Seq()+1] = rows
	if _, err := x.s.Apply(&b); err == nil {
		x.rows = rows
	}
}

// work is a fixed run of what is done to tables: batches that go through leveldb's log and
// past it, views, flushes, and a journal that is cut.
func (x *tables) work() {
	r := rand.New(rand.NewPCG(1, 2))
	for step := range 24 {
		x.apply(r, 1+step%4*25)
		if step%3 == 0 {
			if view, err := x.s.BeginCut().View(); err == nil {
				x.check("a view", view.Seq, view)
				view.Release()
			}
		}
		if seq := x.s.Seq(); step%4 == 1 && x.s.Sync() == nil {
			x.synced = max(x.synced, seq)
		}
		if step%6 == 5 {
			if first, err := x.s.Rotate(0); err == nil && x.s.Forget(first) == nil {
				x.synced = max(x.synced, first-1)
			}
		}
	}
}

func (x *tables) check(when string, seq uint64, r state.Reader) {
	x.t.Helper()
	got := map[string]string{}
	if err := r.Scan([]byte{1}, nil, func(k, v []byte) bool {
		got[string(k)] = string(v)
		return true
	}); err != nil {
		x.t.Errorf("%s: %v", when, err)
	}
	if want := x.after[seq]; !maps.Equal(got, want) {
		x.t.Errorf("%s, after batch %d: %d rows are there, or others, not %d", when, seq, len(got), len(want))
	}
}

// faultAt runs the work on a disk whose n-th event from then on fails, and looks what is
// there after the power went. It reports whether there was such an event.
func faultAt(t *testing.T, n int, reason error) (met bool) {
	d := memdisk.New()
	x := &tables{t: t, disk: d, rows: map[string]string{}, after: map[uint64]map[string]string{0: {}}}
	var err error
	if x.s, err = state.OpenWith("/state", tablesOptions(d)); err != nil {
		t.Fatal(err)
	}
	d.Settle() // all of that is safe
	seen := 0
	var failed memdisk.Event
	d.Fail(func(e memdisk.Event) error {
		if e.Kind == memdisk.Open {
			return nil // it changes nothing
		}
		if seen++; seen != n {
			return nil
		}
		met, failed = true, e
		return reason
	})
	x.work()
	d.Fail(nil)
	at := d.Len()
	_ = x.s.Close()
	r := rand.New(rand.NewPCG(uint64(n), 3))
	losses := d.Losses(at, r, 2)
	for _, loss := range append(losses[:min(2, len(losses))], losses[max(0, len(losses)-2):]...) {
		lost := d.PowerLoss(at, loss)
		when := fmt.Sprintf("event %d (%v) failed with %v, %s lost", n, failed, reason, loss.Name)
		s, err := state.OpenWith("/state", tablesOptions(lost))
		if err != nil {
			t.Errorf("%s: %v", when, err)
			continue
		}
		if s.Seq() < x.synced || s.Rebuilt() {
			t.Errorf("%s: it ends with batch %d, %d was safe; rebuilt: %v", when, s.Seq(), x.synced, s.Rebuilt())
		}
		x.check(when, s.Seq(), s)
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	return met
}

// Whatever change of the disk fails, and whatever of the rest power loss takes: what was
// flushed is there, no view was torn, and no index is lost.
func TestEveryFaultOfTheTables(t *testing.T) {
	if underRace {
		t.Skip("leveldb sends on a channel that is closed when what it waits for failed, on purpose")
	}
	for _, reason := range []error{unix.ENOSPC, unix.EIO, unix.EMFILE} {
		t.Run(reason.Error(), func(t *testing.T) {
			n := 1
			for faultAt(t, n, reason) && !t.Failed() {
				n++
			}
			if n < 100 && !t.Failed() {
				t.Errorf("there are only %d events", n)
			}
		})
	}
}
