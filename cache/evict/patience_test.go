package evict_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// newImpatient returns a device with a small cache, on which writers wait for as long as
// on one in use.
func newImpatient(t testing.TB) *device {
	d := newDevice(t, 16<<20)
	d.close()
	d.wait = 15 * time.Second
	d.open()
	return d
}

func (d *device) setDown(down bool) {
	for i := range 6 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = down })
	}
}

// While a pack is on its way no writer is refused, however long that takes.
func TestSlowUplink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newImpatient(t)
		d.uplink.rate = 100 << 10 // a pack takes 40 s
		if err := d.write(ctx, "large", 40); err != nil {
			t.Errorf("while uploads go on: %v; %+v", err, d.keeper.Report())
		}
	})
}

// narrow is a way on which there is one pack at a time.
type narrow struct {
	*uplink
	line chan struct{} // has an element while one is on its way
}

func (n narrow) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	n.line <- struct{}{}
	defer func() { <-n.line }()
	return n.uplink.Store(ctx, g, lease, manifest, shards)
}

// So it is when uploads go on after an outage, as soon as something has arrived.
func TestSlowUplinkAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newImpatient(t)
		d.close()
		d.sink = narrow{d.uplink, make(chan struct{}, 1)}
		d.open()
		d.setDown(true)
		f, _, err := d.tree.Create(ctx, tree.Root, "before", 0o644, os.O_RDWR, tree.Owner{})
		must(0, err)
		must(f.WriteAt(ctx, (&worker{r: rand.New(rand.NewPCG(1, 2))}).noise(14<<20), 0, false))
		f.Release()
		synctest.Wait()
		d.engine.Urge()
		time.Sleep(time.Second)
		d.uplink.rate = 100 << 10
		d.setDown(false)
		time.Sleep(time.Minute) // a pack arrives, and there are more
		if err := d.write(ctx, "after", 8); err != nil {
			t.Errorf("while uploads go on: %v; %+v", err, d.keeper.Report())
		}
	})
}

// silent is a way to holders that do not answer.
type silent struct{ *uplink }

func (s silent) Store(ctx context.Context, _ group.Group, _, _ []byte, _ [][]byte) (out group.SlotSet, err error) {
	select {
	case <-time.After(20 * time.Second):
		return out, writeback.ErrTooFew
	case <-ctx.Done():
		return out, ctx.Err()
	}
}

// Holders that do not answer keep a writer waiting once, and no longer.
func TestSilentHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newImpatient(t)
		d.close()
		d.sink = silent{d.uplink}
		d.open()
		for _, most := range []time.Duration{2 * time.Minute, 5 * time.Second} {
			begin := time.Now()
			if err := d.write(ctx, fmt.Sprint("large", most), 40); !errors.Is(err, tree.ErrNoSpace) || time.Since(begin) > most {
				t.Errorf("nothing goes out, after %v: %v; %+v", time.Since(begin), err, d.keeper.Report())
			}
		}
	})
}

// What a commit has of a file that is open goes also while holders are told what they may
// delete, which takes long where some of them do not answer.
func TestOpenFilesGoWhileHoldersAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newImpatient(t)
		f, _, err := d.tree.Create(ctx, tree.Root, "open", 0o644, os.O_RDWR, tree.Owner{})
		must(0, err)
		defer f.Release()
		for i := range 14 { // with each commit, some of what those before said is deleted
			must(f.WriteAt(ctx, make([]byte, 1<<20), int64(i)<<20, false))
			if i < 13 {
				must(0, d.engine.Sync(ctx))
			}
		}
		d.uplink.lease = time.Minute
		synctest.Wait()
		d.engine.Urge()
		time.Sleep(10 * time.Second)
		if err := d.write(ctx, "b", 4); err != nil {
			t.Errorf("while all of a file could go: %v; %+v", err, d.keeper.Report())
		}
	})
}

// Who unpins makes room soon, however long nothing could go before.
func TestUnpinnedMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newImpatient(t)
		f, a, err := d.tree.Create(ctx, tree.Root, "pinned", 0o644, os.O_RDWR, tree.Owner{})
		must(0, err)
		must(0, d.tree.Pin(ctx, a.Ino, true))
		must(0, f.Allocate(ctx, 0, 16<<20, 0))
		f.Release()
		must(0, d.engine.Sync(ctx))
		if err := d.write(ctx, "b", 1); !errors.Is(err, tree.ErrNoSpace) {
			t.Fatalf("all is pinned: %v", err)
		}
		time.Sleep(10*time.Minute + time.Second)
		must(0, d.tree.Pin(ctx, a.Ino, false))
		begin := time.Now()
		_ = d.write(ctx, "c", 1)
		time.Sleep(time.Second)
		if err := d.write(ctx, "d", 1); err != nil {
			t.Errorf("%v after it is not: %v; %+v", time.Since(begin), err, d.keeper.Report())
		}
	})
}
