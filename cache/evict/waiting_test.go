package evict_test

import (
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
	"skep/chunker/group"
)

// image is a file of 48 MiB that is open, and out.
func (d *device) image() *tree.File {
	w := &worker{r: rand.New(rand.NewPCG(1, 2))}
	f, _, err := d.tree.Create(ctx, tree.Root, "image", 0o644, os.O_RDWR, tree.Owner{})
	must(0, err)
	for i := range int64(48) {
		must(f.WriteAt(ctx, w.noise(1<<20), i<<20, false))
	}
	must(0, d.engine.Sync(ctx))
	return f
}

// Writers into a large file, most of which is out, are slowed by what they write, not by
// how large it is: it takes much more than half of the cache.
func TestWritesIntoALargeFile(t *testing.T) {
	for _, keep := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			d := newDevice(t, 64<<20)
			w := &worker{r: rand.New(rand.NewPCG(3, 4))}
			f := d.image()
			if !keep {
				f.Release()
				f = must(d.tree.Open(ctx, must(d.tree.Lookup(ctx, tree.Root, "image")).Ino, os.O_RDWR))
			}
			defer f.Release()
			time.Sleep(5 * time.Second)
			d.uplink.rate = 1 << 10 // nothing goes out from now on
			begin := time.Now()
			for range 1000 {
				must(f.WriteAt(ctx, w.noise(4096), 1+w.r.Int64N(4<<20-4096), false))
			}
			if took := time.Since(begin); took > time.Second {
				t.Errorf("writes into 4 MiB were slowed by %v: %+v", took, d.keeper.Report())
			}
			if r := d.keeper.Report(); r.Use.Waiting != 4<<20 {
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
		if n, _ := d.tree.Waiting(); n != 0 {
			t.Errorf("%d bytes wait after a commit", n)
		}
		d.setDown(true)
		must(0, d.write(ctx, "second", 10))
		if err := d.engine.Sync(ctx); err == nil {
			t.Fatal("committed to nobody")
		}
		must(0, d.write(ctx, "third", 5))
		if n, _ := d.tree.Waiting(); n < 15<<20 {
			t.Errorf("%d of 15 MiB wait", n)
		}
		d.close()
		d.open()
		if n, _ := d.tree.Waiting(); n < 15<<20 {
			t.Errorf("%d of 15 MiB wait, opened anew", n)
		}
		d.setDown(false)
		must(0, d.engine.Sync(ctx))
		if n, _ := d.tree.Waiting(); n != 0 {
			t.Errorf("%d bytes wait in the end", n)
		}
	})
}

// A large file that a commit has to leave, as what one of its chunks had before cannot be
// read, is tried again in its own time: nobody asks for a commit every second.
func TestNobodyHurriesForWhatWasLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 56<<20)
		f := d.image()
		f.Release()
		ino := must(d.tree.Lookup(ctx, tree.Root, "image")).Ino
		must(d.tree.Evict(ctx, ino, false))
		must(0, d.tree.FinishEvictions(ctx))
		f = must(d.tree.Open(ctx, ino, os.O_RDWR))
		for i := range int64(31) {
			must(f.ReadAt(ctx, make([]byte, 1<<20), i<<20))
		}
		out := d.swarm.Packs()
		d.swarm.Lose(func(p group.PackRef) bool {
			return slices.ContainsFunc(out, func(o group.PackRef) bool { return o.Group == p.Group && o.Number == p.Number })
		})
		must(f.WriteAt(ctx, []byte("x"), 47<<20+5, false))
		f.Release()
		if err := d.engine.Sync(ctx); err == nil {
			t.Fatal("what cannot be read was committed")
		}
		if fresh, left := d.tree.Waiting(); fresh != 0 || left <= 28<<20 {
			t.Errorf("%d bytes are fresh, %d were left", fresh, left)
		}
		before := d.engine.Progress().Number
		time.Sleep(10 * time.Minute)
		if n := d.engine.Progress().Number - before; n > 60 {
			t.Errorf("%d commits in ten minutes without any change", n)
		}
	})
}

// What changes again and again while commits fail waits once; nor does the hole wait that a
// write far behind the end makes.
func TestWhatWaitsIsCountedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDevice(t, 128<<20)
		f := d.image()
		defer f.Release()
		little, _, err := d.tree.Create(ctx, tree.Root, "little", 0o644, os.O_RDWR, tree.Owner{})
		must(0, err)
		defer little.Release()
		must(little.WriteAt(ctx, make([]byte, 100<<10), 0, false))
		must(0, d.engine.Sync(ctx))
		change := func() {
			must(f.WriteAt(ctx, []byte("x"), 5<<20+7, false))
			must(little.WriteAt(ctx, []byte("x"), 7, false))
		}
		for range 100 {
			change()
			cut := must(d.tree.Cut())
			change()
			cut.Close() // it failed
		}
		must(f.WriteAt(ctx, []byte("x"), 50<<30, false))
		if fresh, left := d.tree.Waiting(); fresh > 3<<20 || fresh < 1<<20 || left != 0 {
			t.Errorf("%d bytes are fresh, %d were left", fresh, left)
		}
	})
}
