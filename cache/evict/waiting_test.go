package evict_test

import (
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
)

// Writes into a large file, most of which is out, are slowed by what they write, not by
// how large it is: it takes much more than half of the cache.
func TestWritesIntoALargeFile(t *testing.T) {
	for _, keep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, 64<<20)
			w := &worker{r: rand.New(rand.NewPCG(1, 2))}
			f, _, err := d.tree.Create(ctx, tree.Root, "image", 0o644, os.O_RDWR, tree.Owner{})
			must(0, err)
			for i := range int64(48) {
				must(f.WriteAt(ctx, w.noise(1<<20), i<<20, false))
			}
			must(0, d.engine.Sync(ctx))
			if !keep {
				f.Release()
				f = must(d.tree.Open(ctx, must(d.tree.Lookup(ctx, tree.Root, "image")).Ino, os.O_RDWR))
			}
			defer f.Release()
			time.Sleep(5 * time.Second)
			d.uplink.rate = 1 << 10 // nothing goes out from now on
			begin := time.Now()
			for range 1000 {
				must(f.WriteAt(ctx, w.noise(4096), w.r.Int64N(48<<20), false))
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("4 MiB of writes were slowed by %v: %+v", took, d.keeper.Report())
			}
			if r := d.keeper.Report(); r.Use.Waiting < 4_096_000 || r.Use.Waiting > 5_000_000 {
				t.Errorf("%d bytes wait", r.Use.Waiting)
			}
		})
	}
}

// What a commit did not take still waits.
func TestWhatWasNotTakenWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 64<<20)
		must(0, d.write(ctx, "first", 10))
		must(0, d.engine.Sync(ctx))
		if n := d.tree.Waiting(); n != 0 {
			t.Errorf("%d bytes wait after a commit", n)
		}
		d.setDown(true)
		must(0, d.write(ctx, "second", 10))
		if err := d.engine.Sync(ctx); err == nil {
			t.Fatal("committed to nobody")
		}
		must(0, d.write(ctx, "third", 5))
		if n := d.tree.Waiting(); n < 15<<20 {
			t.Errorf("%d of 15 MiB wait", n)
		}
		d.close()
		d.open()
		if n := d.tree.Waiting(); n < 15<<20 {
			t.Errorf("%d of 15 MiB wait, opened anew", n)
		}
		d.setDown(false)
		must(0, d.engine.Sync(ctx))
		if n := d.tree.Waiting(); n != 0 {
			t.Errorf("%d bytes wait in the end", n)
		}
	})
}
