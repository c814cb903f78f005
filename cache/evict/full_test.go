package evict_test

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/space"
	"skep/cache/tree"
	"skep/test/memswarm"
)

// Who waits in vain for room looks for it a few times in a second, also where a quota
// is used up and the disk says that it has room.
func TestWaitingInVainIsQuiet(t *testing.T) {
	for _, quota := range []bool{false, true} {
		t.Run(fmt.Sprint("quota ", quota), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFullDevice(t, quota)
				out := must(d.tree.Lookup(ctx, tree.Root, "out"))
				must(0, d.tree.Pin(ctx, out.Ino, true)) // so nothing can go
				before, begin := d.looks.Load(), time.Now()
				if err := d.write(ctx, "new", 6); !errors.Is(err, tree.ErrNoSpace) {
					t.Errorf("there is no room: %v", err)
				}
				n, took := d.looks.Load()-before, time.Since(begin)
				if took < 15*time.Second || n > 15*int64(took/time.Second) {
					t.Errorf("looked %d times in %v", n, took)
				}
			})
		})
	}
}

// What is reserved and not written waits for room as a write does, and is tried again;
// and is refused when nothing can go.
func TestAllocateWaitsForRoom(t *testing.T) {
	for _, quota := range []bool{false, true} {
		t.Run(fmt.Sprint("quota ", quota), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newFullDevice(t, quota)
				f, _, err := d.tree.Create(ctx, tree.Root, "new", 0o644, os.O_RDWR, tree.Owner{})
				must(0, err)
				defer f.Release()
				begin := time.Now()
				if err := f.Allocate(ctx, 0, 6<<20, 0); err != nil || time.Since(begin) > 5*time.Second {
					t.Errorf("while 24 MiB could go, in %v: %v", time.Since(begin), err)
				}
				out := must(d.tree.Lookup(ctx, tree.Root, "out"))
				must(0, d.tree.Pin(ctx, out.Ino, true))
				d.disk.taken.Add(d.disk.free())
				begin = time.Now()
				if err := f.Allocate(ctx, 6<<20, 12<<20, 0); !errors.Is(err, tree.ErrNoSpace) || time.Since(begin) > time.Minute {
					t.Errorf("when nothing can go, in %v: %v", time.Since(begin), err)
				}
			})
		})
	}
}

// What is promised to others, and was taken by somebody else, does not keep a drive
// from writing: the least that a drive needs goes before it.
func TestPromisesYield(t *testing.T) { synctest.Test(t, testPromisesYield) }

func testPromisesYield(t *testing.T) {
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(6, 2, 4), limit: 96 << 20, wait: 15 * time.Second}
	d.uplink = &uplink{Swarm: d.swarm}
	const size = 1 << 30
	free := int64(200 << 20)
	d.measured = func() space.Disk { return space.Disk{Size: size, Free: free, Promised: 400 << 20} }
	d.open()
	t.Cleanup(func() {
		d.close()
		time.Sleep(time.Minute)
	})
	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	if err := d.write(ctx, "little", 12); err != nil {
		t.Errorf("within what goes before a promise: %v; %+v", err, d.keeper.Report())
	}
	if err := d.write(ctx, "much", 12); !errors.Is(err, tree.ErrNoSpace) {
		t.Errorf("of what is promised: %v; %+v", err, d.keeper.Report())
	}
}

// After nothing could go for some time it is not looked for a while; but another limit
// is another thing.
func TestAnotherLimit(t *testing.T) { synctest.Test(t, testAnotherLimit) }

func testAnotherLimit(t *testing.T) {
	d := newDevice(t, 64<<20)
	must(0, d.write(ctx, "a", 24))
	must(0, d.engine.Sync(ctx))
	a := must(d.tree.Lookup(ctx, tree.Root, "a"))
	must(0, d.tree.Pin(ctx, a.Ino, true))
	d.keeper.SetLimit(16 << 20)
	time.Sleep(5 * time.Minute) // in which nothing can go
	must(0, d.tree.Pin(ctx, a.Ino, false))
	d.keeper.SetLimit(18 << 20)
	time.Sleep(3 * time.Second)
	if n, _ := d.onDisk(); n > 18<<20 {
		t.Errorf("%d bytes are here, of 18 MiB that may be", n)
	}
}
