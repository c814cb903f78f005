package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// full is a sink of which no holder has room for more, if only is zero, or for more of
// this kind.
type full struct {
	*memswarm.Swarm
	is   atomic.Bool
	only group.Kind
}

func (f *full) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if f.is.Load() && (f.only == 0 || f.only == g.Kind) {
		return group.SlotSet{}, writeback.ErrTooFew
	}
	return f.Swarm.Store(ctx, g, lease, manifest, shards)
}

// deleted is a drive of which most was deleted, from packs of which each has
// something that is needed still.
type deleted struct {
	*device
	from      *partly
	to        *full
	before    int64 // bytes that holders had
	published atomic.Int64
	want      map[string]string
}

func newDeleted(t *testing.T, before func(*deleted)) *deleted {
	swarm := memswarm.New(9, 4, 7)
	d := &deleted{from: &partly{Swarm: swarm}, to: &full{Swarm: swarm}, want: map[string]string{}}
	d.device = &device{t: t, dir: t.TempDir(), swarm: swarm, source: d.from, sink: d.to, timing: writeback.DefaultTiming}
	d.publish = func(ctx context.Context, h commit.Head) error {
		d.published.Add(1)
		return swarm.Publish(ctx, h)
	}
	d.open(newDrive)
	t.Cleanup(func() {
		d.close()
		time.Sleep(time.Minute) // the index ends a little later
	})
	put := d.putting(d.want)
	for i := range 4 {
		put(fmt.Sprint("keep", i), random(uint64(i), 400_000))
		put(fmt.Sprint("goes", i), random(uint64(10+i), 3_000_000))
		d.sync()
	}
	d.before, _ = swarm.Bytes()
	for i := range 4 {
		name := fmt.Sprint("goes", i)
		if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
			t.Fatal(err)
		}
		delete(d.want, name)
	}
	before(d)
	d.sync()
	return d
}

// rests lets days go by, and reports how many commits came by themselves.
func (d *deleted) rests() int64 {
	before := d.published.Load()
	time.Sleep(48 * time.Hour)
	synctest.Wait()
	return d.published.Load() - before
}

func (d *deleted) left() int64 {
	left, _ := d.swarm.Bytes()
	return left
}

// givenBack checks that holders have little of what was deleted, and all of the rest.
func (d *deleted) givenBack() {
	d.t.Helper()
	if left := d.left(); left > d.before/3 {
		d.t.Errorf("%d of %d bytes are left", left, d.before)
	}
	check(d.t, d.committed(), d.want)
	d.audit()
}

// What was deleted is given back though nothing is written any more, with few
// commits.
func TestDeletedSpaceIsGivenBackByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeleted(t, func(*deleted) {})
		if left := d.left(); left < d.before/2 {
			t.Fatalf("%d of %d bytes are left at once", left, d.before)
		}
		if n := d.rests(); n == 0 || n > 2 {
			t.Errorf("%d commits", n)
		}
		if n := d.rests(); n != 0 {
			t.Errorf("%d commits of a drive that rests", n)
		}
		d.givenBack()
	})
}

// Where the packs cannot be read, no commit comes of it, and nobody who syncs is told;
// nor is it tried again and again.
func TestWhatCannotBeFoldedLetsTheDriveRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked atomic.Int64
		d := newDeleted(t, func(d *deleted) {
			refuse := func(ref group.PackRef) bool {
				g, _, _ := d.table.Group(ref.Group)
				if g.Kind == group.Content {
					asked.Add(1)
				}
				return g.Kind == group.Content
			}
			d.from.refuse.Store(&refuse)
		})
		if n := d.rests(); n != 0 {
			t.Errorf("%d commits though nothing was folded", n)
		}
		if n := asked.Load(); n == 0 || n > 20 {
			t.Errorf("holders were asked %d times", n)
		}
		d.sync()
		d.from.refuse.Store(nil)
		d.rests()
		d.sync() // looks again
		d.rests()
		d.givenBack()
	})
}

// Where what is moved finds no holders, it is not read again with each attempt.
func TestWhatFindsNoHoldersIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeleted(t, func(*deleted) {})
		d.to.is.Store(true)
		n, fetched := d.published.Load(), d.swarm.Fetched()
		time.Sleep(9 * time.Minute)
		synctest.Wait()
		if again := d.published.Load() - n; again != 0 {
			t.Errorf("%d commits though nothing is stored", again)
		}
		if fetched = d.swarm.Fetched() - fetched; fetched < 400_000 || fetched > 4<<20 {
			t.Errorf("%d bytes were fetched", fetched)
		}
		d.to.is.Store(false)
		d.rests()
		d.sync()
		d.rests()
		d.givenBack()
	})
}

// Where content was moved, and the commit that tells where to does not come about,
// nothing is given up that the newest one names, not even by a device that is opened
// again.
func TestWhatWasMovedIsToldBeforeItIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDeleted(t, func(*deleted) {})
		d.to.only = group.Metadata
		d.to.is.Store(true)
		stored := d.swarm.Stored()
		time.Sleep(time.Minute)
		if d.swarm.Stored() == stored {
			t.Fatal("nothing was moved")
		}
		d.close()
		d.open(nil)
		if err := d.engine.Sync(ctx); !errors.Is(err, writeback.ErrTooFew) {
			t.Errorf("a sync: %v", err)
		}
		check(t, d.committed(), d.want)
		d.to.is.Store(false)
		d.sync()
		d.rests()
		d.givenBack()
	})
}
