package writeback_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/blocks"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// losesPacks has holders lose packs of a device that was opened without that: what lose
// names is lost to it, or with only, here alone.
func (d *device) losesPacks(only bool) (lose func(...place)) {
	a := &abandoned{device: d, gone: map[place]bool{}}
	d.close()
	if d.only = a.packsOnlyHere; !only {
		d.only = nil
		d.gone = func(id group.ID, n uint16) bool {
			a.mu.Lock()
			defer a.mu.Unlock()
			return a.gone[place{id, n}]
		}
	}
	d.open(nil)
	return func(packs ...place) {
		a.mu.Lock()
		defer a.mu.Unlock()
		for _, p := range packs {
			a.gone[p] = true
			if only {
				continue
			}
			if err := d.packs.Remove(p.group, p.number); err != nil {
				d.t.Fatal(err)
			}
		}
		d.swarm.Lose(func(p group.PackRef) bool { return a.gone[place{p.Group, p.Number}] })
	}
}

// metadataPacks are those that the account has.
func (d *device) metadataPacks() (out []place) {
	d.t.Helper()
	err := d.table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Metadata {
			out = append(out, place{p.Group, p.Number})
		}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return out
}

// While content waits for room, the newest commit that is lost is said anew, and where
// that is which went out again out of packs that were only here: that takes no such room.
func TestWaitingContentHidesNoLoss(t *testing.T) {
	for _, only := range []bool{false, true} {
		d, sink, published := fullDevice(t, 1<<30)
		lose := d.losesPacks(only)
		want := map[string]string{"wide/": ""}
		for i := range 100 {
			d.putting(want)(fmt.Sprint("wide/", i), random(uint64(i), 400))
		}
		d.sync()
		d.putting(want)("f", random(200, 100_000))
		d.sync()
		d.fillUp(sink)
		d.syncFull()
		at := d.swarm.Head().Commit
		lost := []place{{at.Group, at.Number}}
		if only {
			lost = d.metadataPacks()
		}
		before := *published
		lose(lost...)
		d.syncFull()
		check(t, d.committed(), want)
		for range 3 {
			d.syncFull()
		}
		if n := *published - before; n > 2 {
			t.Errorf("%d commits, of what was lost once", n)
		}
		check(t, d.committed(), want)
	}
}

// Where each commit is lost again, they come less and less often, also with a sync each
// minute.
func TestWaitingContentAndCommitsThatAreLostEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := memswarm.New(9, 4, 7)
		sink := &offered{swarm, 1 << 30}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish,
			timing: writeback.Timing{Quiet: time.Minute, Most: 20 * time.Minute, Retry: 20 * time.Minute}}
		d.gone = func(group.ID, uint16) bool { return true }
		d.open(newDrive)
		t.Cleanup(func() {
			d.close()
			time.Sleep(time.Minute) // the index ends a little later
		})
		want := map[string]string{}
		d.putting(want)("f", random(1, 100_000))
		d.sync()
		d.fillUp(sink)
		d.syncFull()
		n, _ := d.stores(1)
		if more, _ := d.stores(12); n < 3 || more > 8 {
			t.Errorf("%d commits in the first hour, %d in half a day", n, more)
		}
		before := swarm.Published()
		for range 10 {
			time.Sleep(time.Minute)
			d.syncFull()
		}
		if more := swarm.Published() - before; more > 2 {
			t.Errorf("%d commits with 10 syncs", more)
		}
		check(t, d.committed(), want)
	})
}

// So they do where it is pieces of the index that are lost each time, which only lists name.
func TestPiecesOfTheIndexThatAreLostEachTime(t *testing.T) {
	for _, full := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			swarm := memswarm.New(9, 4, 7)
			sink := &offered{swarm, 1 << 30}
			lost := map[place]bool{}
			d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink,
				timing: writeback.Timing{Quiet: 25 * time.Second, Most: 25 * time.Second, Retry: 25 * time.Second}}
			d.publish = func(ctx context.Context, h commit.Head) error {
				r := stranger(t, swarm)
				for _, s := range must(commit.Parse(must(r.At(ctx, h.Commit)))).Segments {
					for _, p := range must(r.Pieces(ctx, s, h.Commit)) {
						lost[place{p.At.Group, p.At.Number}] = s.Lists
					}
				}
				return swarm.Publish(ctx, h)
			}
			d.gone = func(id group.ID, n uint16) bool { return lost[place{id, n}] }
			d.open(newDrive)
			d.engine.SetIndexShape(8, 2, 4)
			t.Cleanup(func() {
				d.close()
				time.Sleep(time.Minute) // tables end a little later
			})
			for i := range 120 {
				d.put(fmt.Sprint("dir/", i), random(uint64(i), 1500))
			}
			d.sync()
			d.put("f", random(1000, 1500))
			d.sync()
			if full {
				sink.room, _ = swarm.Bytes()
				d.put("waits", random(99, 10_000))
				d.syncFull()
			}
			if n, _ := d.stores(1); n < 2 || n > 8 {
				t.Errorf("%d commits in an hour", n)
			}
		})
	}
}
