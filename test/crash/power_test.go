package crash

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/test/blockdev"
	"skep/test/model"
	"skep/test/seed"
)

// newPower returns a tester for the time of a test, or skips it.
func newPower(t *testing.T, r *rand.Rand, most int) *Power {
	t.Helper()
	if err := blockdev.Usable(); err != nil {
		t.Skip(err)
	}
	dir, err := os.MkdirTemp("", "skep-power-")
	if err != nil {
		t.Fatal(err)
	}
	x, err := NewPower(dir, r, most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return x
}

// tryPower runs cases on disks of their own, some at a time.
func tryPower(t *testing.T, from uint64, most int, cases func(yield func(Case) bool)) {
	t.Helper()
	var testers []*Power
	share(t, runtime.NumCPU(), cases, func(worker int) func(Case) {
		x := newPower(t, rand.New(rand.NewPCG(from, uint64(worker))), most)
		testers = append(testers, x)
		return func(c Case) {
			if err := x.Run(c); err != nil && !t.Failed() {
				c, err = x.Shrink(c, err)
				t.Errorf("%v\n%v", c, err)
			}
		}
	})
	var total Power
	for _, x := range testers {
		total.Cases, total.Images, total.States = total.Cases+x.Cases, total.Images+x.Images, total.States+x.States
	}
	t.Logf("%d cases, %d images mounted, %d states looked at", total.Cases, total.Images, total.States)
}

// TestPowerPairs does pairs of operations: five or so, or, at length, all. Mounting an
// ext4 takes its time, so each case has twelve images at most looked at, drawn from all
// moments and ways to lose what was not flushed; the other testers of pairs look at every
// moment.
func TestPowerPairs(t *testing.T) {
	from := seed.For(t)
	pairs(t, from, 5, 6, func(t *testing.T, cases func(yield func(killedCase) bool)) {
		tryPower(t, from, 12, func(yield func(Case) bool) {
			cases(func(c killedCase) bool { return yield(c.Case) })
		})
	})
}

// TestPowerRandom does longer cases.
func TestPowerRandom(t *testing.T) {
	from := seed.For(t)
	r := rand.New(rand.NewPCG(from, 6))
	end := time.Now().Add(long(t))
	most := 12
	if long(t) > 0 {
		most = 80
	}
	tryPower(t, from, most, func(yield func(Case) bool) {
		for i := 0; i < 4 || time.Now().Before(end); i++ {
			if !yield(Random(r)) {
				return
			}
		}
	})
}

// TestPowerBroken leaves out flushes of one kind each: the tester has to see it.
func TestPowerBroken(t *testing.T) {
	g := "A/g"
	for name, b := range map[string]struct {
		without omission
		c       Case
	}{
		"journal":       {flushFile + "state/journal", Case{Setup: setup, Ops: []model.Op{{Kind: model.Create, Path: "n"}, {Kind: model.Sync}}}},
		"backing files": {flushFile + "files", Case{Setup: setup, Ops: []model.Op{{Kind: model.Write, Path: g, Off: 10, Len: 20, Fill: 3}, {Kind: model.Fsync, Path: g}}}},
		"what was passed through": {flushFile + "files", Case{Passthrough: true, Setup: setup, Ops: []model.Op{
			{Kind: model.Open, Path: "n", Flags: os.O_WRONLY | os.O_CREATE | os.O_TRUNC}, {Kind: model.WriteTo, Len: 20000, Fill: 3}, {Kind: model.FsyncOpen}}}},
	} {
		t.Run(name, func(t *testing.T) {
			x := newPower(t, rand.New(rand.NewPCG(1, 1)), 10)
			x.Quiet = true
			if err := x.Run(b.c); err != nil {
				t.Fatalf("whole: %v", err)
			}
			x.Without, x.Most = b.without, 1000
			if err := x.Run(b.c); err == nil {
				t.Error("nobody noticed")
			} else {
				t.Logf("seen: %v", err)
			}
		})
	}
}

// TestPowerFailedFlush: the disk does not take what a file has, so fsync fails,
// every time. Then the disk works again, and so does fsync once the server was
// killed and started again: what the file holds then survives power loss,
// whatever that is.
func TestPowerFailedFlush(t *testing.T) {
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			x := newPower(t, rand.New(rand.NewPCG(1, 1)), 1)
			before, err := x.prepare(Case{Passthrough: passthrough, Setup: setup})
			if err != nil {
				t.Fatal(err)
			}
			var promised model.Listing
			var flushed int
			err = x.mounted(before.image, func() (err error) {
				promised, flushed, err = x.failFlush(passthrough)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			events := x.dev.Events()
			was := &drive{holders: newHolders(), passthrough: passthrough}
			loss := blockdev.Losses(x.Rand, 0)[1]
			x.seen = map[uint64]bool{}
			err = x.look(blockdev.PowerLoss(before.image, events[:flushed], loss), was, 0, func(l model.Listing) error {
				return model.DifferBytes(l["A/g"].Content, promised["A/g"].Content)
			})
			if err != nil {
				t.Errorf("flushed, and lost: %v", err)
			}
		})
	}
}

// failFlush has fsync fail, and later succeed in another server, and tells what
// that shows then.
func (x *Power) failFlush(passthrough bool) (_ model.Listing, flushed int, _ error) {
	d, err := servedAt(x.dir, x.home(), passthrough, "")
	if err == nil {
		err = d.Start()
	}
	if err != nil {
		return nil, 0, err
	}
	defer func() { d.Kill() }()
	write := model.Op{Kind: model.Write, Path: "A/g", Off: 4096, Len: 4096, Fill: 99}
	x.dev.Fail(write.Bytes())
	d.Do(write)
	for range 2 {
		if r := d.Do(model.Op{Kind: model.Fsync, Path: "A/g"}); r.Errno != unix.EIO {
			return nil, 0, fmt.Errorf("fsync of what the disk does not take: %v", r)
		}
	}
	x.dev.Fail(nil)
	if r := d.Do(model.Op{Kind: model.Fsync, Path: "A/g"}); r.Errno != unix.EIO {
		return nil, 0, fmt.Errorf("fsync of what was lost: %v", r)
	}
	d.Kill()
	if err := d.Start(); err != nil {
		return nil, 0, err
	}
	l, err := d.List()
	if err == nil {
		err = nilOr(d.Do(model.Op{Kind: model.Fsync, Path: "A/g"}).Errno)
	}
	return l, x.dev.Len(), err
}

func nilOr(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

// TestPowerUnasked: what no program had flushed survives power loss all the same
// once a second is over, names and contents. A busy machine may take longer, but
// hardly three times.
func TestPowerUnasked(t *testing.T) {
	const soon, tries = 3 * time.Second, 3
	for _, passthrough := range []bool{false, true} {
		t.Run(fmt.Sprintf("passthrough %v", passthrough), func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, 1))
			x, eye := newPower(t, r, 1), newPower(t, r, 1)
			var took [tries]time.Duration
			for i := range took {
				var err error
				if took[i], err = x.unasked(passthrough, eye); err != nil {
					t.Fatal(err)
				}
				if took[i] < soon {
					t.Logf("safe after %v", took[:i+1])
					return
				}
			}
			t.Errorf("safe after %v", took)
		})
	}
}

// unasked changes names and contents and tells how long it took until the device
// had all of it. Another device is there to look at what this one has.
func (x *Power) unasked(passthrough bool, eye *Power) (took time.Duration, err error) {
	before, err := x.prepare(Case{Passthrough: passthrough, Setup: setup})
	if err != nil {
		return 0, err
	}
	m := model.New()
	for _, op := range setup {
		m.Do(op)
	}
	return took, x.mounted(before.image, func() error {
		d, err := servedAt(x.dir, x.home(), passthrough, "")
		if err == nil {
			err = d.Start()
		}
		if err != nil {
			return err
		}
		defer d.Kill()
		for _, op := range []model.Op{{Kind: model.Write, Path: "A/g", Off: 100, Len: 1500, Fill: 5}, {Kind: model.Create, Path: "n"},
			{Kind: model.Write, Path: "n", Len: 17000, Fill: 6}, {Kind: model.Rename, Path: "A/f", To: "B/n"}} {
			m.Do(op)
			if r := d.Do(op); r.Errno != 0 {
				return fmt.Errorf("%v: %v", op, r)
			}
		}
		took, err = x.untilSafe(before.image, &drive{holders: newHolders(), passthrough: passthrough}, m.Listing(), eye)
		return err
	})
}

// untilSafe waits for a flush behind which everything is there.
func (x *Power) untilSafe(before blockdev.Image, was *drive, want model.Listing, eye *Power) (time.Duration, error) {
	began := time.Now()
	lost := blockdev.Losses(x.Rand, 0)[1]
	for seen := 0; ; time.Sleep(time.Millisecond) {
		events, took := x.dev.Events(), time.Since(began)
		if !slices.ContainsFunc(events[seen:], blockdev.Event.IsFlush) {
			if took > time.Minute {
				return took, errors.New("nothing was flushed for a minute")
			}
			continue
		}
		seen = len(events)
		eye.seen = map[uint64]bool{}
		err := eye.look(blockdev.PowerLoss(before, events, lost), was, 0, func(l model.Listing) error { return model.Differ(l, want) })
		if err == nil || took > time.Minute {
			return took, err
		}
	}
}
