package writeback_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/blocks"
	"skep/cache/readerr"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// abandoned is a drive of which holders can lose packs that the device has.
type abandoned struct {
	*device
	mu   sync.Mutex // guards gone
	gone map[place]bool
}

type place struct {
	group  group.ID
	number uint16
}

// newAbandoned returns one with a folder that takes several packs, and what is in it.
// Another device may be there, so that nothing is given up.
func newAbandoned(t *testing.T) (*abandoned, map[string]string) {
	a := openAbandoned(t)
	want := map[string]string{"wide/": "", "deep/": "", "deep/er/": ""}
	put := a.putting(want)
	for i := range 300 {
		put(fmt.Sprintf("wide/%d", i), random(uint64(i), 400))
	}
	put("deep/er/large", random(1000, 3<<20))
	a.sync()
	return a, want
}

// openAbandoned returns one with nothing in it.
func openAbandoned(t *testing.T) *abandoned {
	a := &abandoned{gone: map[place]bool{}}
	a.device = &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7), alone: func(time.Time) bool { return false }, only: a.packsOnlyHere}
	a.open(newDrive)
	t.Cleanup(func() { a.close() })
	return a
}

// packsOnlyHere are those that holders have lost.
func (a *abandoned) packsOnlyHere() map[group.ID]group.Bitmap {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := map[group.ID]group.Bitmap{}
	for p := range a.gone {
		packs := out[p.group]
		packs.Add(p.number)
		out[p.group] = packs
	}
	return out
}

// abandon has holders lose all packs of metadata that there are, but for some.
func (a *abandoned) abandon(but map[place]bool) {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	err := a.table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Metadata && !but[place{p.Group, p.Number}] {
			a.gone[place{p.Group, p.Number}] = true
		}
		return true
	})
	if err != nil {
		a.t.Fatal(err)
	}
	a.swarm.Lose(func(p group.PackRef) bool { return a.gone[place{p.Group, p.Number}] })
}

// onlyHere counts the packs that are needed, and only here.
func (a *abandoned) onlyHere() (n int) {
	a.t.Helper()
	err := a.table.Packs(func(p blocks.Pack) bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		if p.Live > 0 && a.gone[place{p.Group, p.Number}] {
			n++
		}
		return true
	})
	if err != nil {
		a.t.Fatal(err)
	}
	return n
}

// Packs of metadata of which holders have lost too much go out again from what this
// device kept of them, though nothing changed, and the drive comes to rest then.
func TestMetadataThatIsOnlyHereGoesOutAgain(t *testing.T) {
	d, want := newAbandoned(t)
	d.abandon(nil)
	if d.onlyHere() == 0 {
		t.Fatal("nothing is only here")
	}
	d.sync()
	if n := d.onlyHere(); n != 0 {
		t.Fatalf("%d packs are only here after a sync", n)
	}
	check(t, d.committed(), want)
	before := d.swarm.Stored()
	d.sync()
	if n := d.swarm.Stored() - before; n != 0 {
		t.Errorf("%d bytes were stored of a drive that rests", n)
	}
	d.abandon(nil)
	d.putting(want)("deep/another", []byte("note"))
	d.sync() // along with a change
	check(t, d.committed(), want)
}

// While nobody takes them they stay here, other changes are not kept from going out by
// that, and the next who waits has it tried again.
func TestMetadataThatNobodyTakesStaysHere(t *testing.T) {
	d, want := newAbandoned(t)
	d.abandon(nil)
	for i := range 9 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = true })
	}
	d.sync() // there is nothing else to go out
	if d.onlyHere() == 0 {
		t.Fatal("nothing is only here, though nobody took it")
	}
	for i := range 9 {
		d.swarm.Set(i, func(h *memswarm.Holder) { h.Down = false })
	}
	d.sync()
	check(t, d.committed(), want)
}

// The newest commit and what it names are said anew, though nothing changed, when holders
// have lost the packs of that, and no copy of these is here either.
func TestCommitThatIsLostIsSaidAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := memswarm.New(9, 4, 7)
		lost := map[place]bool{}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, timing: writeback.DefaultTiming}
		d.gone = func(id group.ID, n uint16) bool { return lost[place{id, n}] }
		d.open(newDrive)
		t.Cleanup(func() {
			d.close()
			time.Sleep(time.Minute) // the index ends a little later
		})
		want := map[string]string{}
		for i := range 2 {
			d.putting(want)(fmt.Sprint("f", i), random(uint64(i), 100_000))
			d.sync()
		}
		at := swarm.Head().Commit
		synctest.Wait()
		lost[place{at.Group, at.Number}] = true
		swarm.Lose(func(p group.PackRef) bool { return lost[place{p.Group, p.Number}] })
		if err := d.packs.Remove(at.Group, at.Number); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		check(t, d.committed(), want)
		before := swarm.Stored()
		time.Sleep(time.Hour)
		synctest.Wait()
		if n := swarm.Stored() - before; n != 0 {
			t.Errorf("%d bytes were stored of a drive that rests", n)
		}
	})
}

// Of a pack that is only here, and damaged, all goes out that can be read; the rest is
// taken for lost, so that it is made again from files and folders.
func TestDamagedPackThatIsOnlyHere(t *testing.T) {
	d, _ := newAbandoned(t)
	at := d.swarm.Head().Commit // its own pack has none of the folders
	var damaged place
	err := d.table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Metadata && (p.Group != at.Group || p.Number != at.Number) {
			damaged = place{p.Group, p.Number}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	var victim blocks.Block
	for _, m := range must(d.table.Members(damaged.group, damaged.number)) {
		if m.Refs > 0 {
			victim = m
		}
	}
	pack := must(d.packs.Get(damaged.group, damaged.number))
	pack[victim.Places[0].Offset] ^= 1
	if err := d.packs.Put(damaged.group, damaged.number, pack); err != nil {
		t.Fatal(err)
	}
	d.abandon(nil)
	d.sync()
	if _, err := d.packs.Get(damaged.group, damaged.number); err == nil {
		t.Error("the damaged pack is still taken for a copy")
	}
	for _, m := range must(d.table.Members(damaged.group, damaged.number)) {
		home := place{m.Places[0].Group, m.Places[0].Number}
		if m.Refs > 0 && (home == damaged) != (m.Link.Hash == victim.Link.Hash) {
			t.Errorf("block %v is in %v", m.Link, home)
		}
	}
}

// away is a swarm that does not give some packs.
type away struct {
	*memswarm.Swarm
	packs map[place]bool
}

func (a *away) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	if a.packs[place{ref.Group, ref.Number}] {
		return nil, readerr.ErrUnreachable
	}
	return a.Swarm.ReadRange(ctx, ref, off, n)
}

func (a *away) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, _ func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	b, err := a.ReadRange(ctx, ref, off, n)
	return b, err == nil && fits(b), err
}

// A list of pieces of the index cannot be read when these pieces are moved, as its holders
// are away: the commit that tells of it does not name that list, which says where they were.
func TestListThatIsAwayWhileItsPiecesAreMoved(t *testing.T) {
	d := openAbandoned(t)
	d.engine.SetIndexShape(8, 3, 4)
	want := map[string]string{}
	put := d.putting(want)
	for i := range 120 {
		put(fmt.Sprint("f", i), random(uint64(i), 700))
	}
	d.sync()
	put("tick", []byte("tick"))
	d.sync()
	lists := map[place]bool{}
	at := d.swarm.Head().Commit
	for _, s := range must(commit.Parse(must(stranger(t, d.swarm).At(ctx, at)))).Segments {
		for _, p := range s.Pieces {
			if l := p.At.In(at); s.Lists {
				lists[place{l.Group, l.Number}] = true
			}
		}
	}
	if len(lists) == 0 {
		t.Fatal("the index has no lists")
	}
	d.close()
	d.source = &away{d.swarm, lists}
	for l := range lists {
		if err := d.packs.Remove(l.group, l.number); err != nil {
			t.Fatal(err)
		}
	}
	d.open(nil)
	d.engine.SetIndexShape(8, 3, 4)
	d.abandon(lists)
	d.sync()
	check(t, d.committed(), want)
}
