package writeback_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/blocks"
	"skep/cache/disk"
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

// restingIn is a device that joined a drive whose index has two segments, the larger one in
// this pack. In a bubble, it rests then.
func restingIn(t *testing.T, lost func(place) bool) (d *device, want map[string]string, larger place) {
	return shapedIn(t, lost, func(*writeback.Engine) {})
}

// shapedIn is restingIn for an index that shape gave its shape.
func shapedIn(t *testing.T, lost func(place) bool, shape func(*writeback.Engine)) (d *device, want map[string]string, larger place) {
	swarm := memswarm.New(9, 4, 7)
	first := &device{t: t, dir: t.TempDir(), swarm: swarm}
	first.open(newDrive)
	shape(first.engine)
	want = map[string]string{"dir/": ""}
	put := first.putting(want)
	for _, n := range []int{100, 20} {
		if n == 20 {
			at := swarm.Head().Commit
			larger = place{at.Group, at.Number}
		}
		for i := range n {
			put(fmt.Sprintf("dir/%d-%d", n, i), random(uint64(100*n+i), 1500))
		}
		first.sync()
	}
	first.close()
	t.Cleanup(func() { time.Sleep(time.Minute) }) // tables end a little later
	d = &device{t: t, dir: t.TempDir(), swarm: swarm, number: 1, timing: writeback.DefaultTiming}
	d.gone = func(id group.ID, n uint16) bool { return lost(place{id, n}) }
	return d, want, larger
}

// stores is what a device that rests stores in so many hours, in commits and bytes.
func (d *device) stores(hours int) (commits int, bytes int64) {
	commits, bytes = d.swarm.Published(), d.swarm.Stored()
	time.Sleep(time.Duration(hours) * time.Hour)
	synctest.Wait()
	return d.swarm.Published() - commits, d.swarm.Stored() - bytes
}

// A device that has counted all references writes the index anew of which holders have lost
// a segment, and comes to rest.
func TestIndexThatIsLostIsSaidAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lost, larger place
		d, want, larger := restingIn(t, func(p place) bool { return p == lost })
		d.recover()
		d.stores(1)
		if counted, err := d.table.Counted(); err != nil || !counted {
			t.Fatal("not counted", err)
		}
		lost = larger
		d.swarm.Lose(func(p group.PackRef) bool { return p.Group == lost.group && p.Number == lost.number })
		d.mends(want)
	})
}

// mends has a device at rest say anew, within an hour and three commits, what was lost of its
// newest commit, and rest again; who recovers then finds all.
func (d *device) mends(want map[string]string) {
	d.t.Helper()
	if n, _ := d.stores(1); n == 0 || n > 3 {
		d.t.Errorf("%d commits for it", n)
	}
	check(d.t, d.committed(), want)
	if n, bytes := d.stores(24); n != 0 || bytes != 0 {
		d.t.Errorf("%d commits, %d bytes of a drive that rests", n, bytes)
	}
	recovered(d.t, d.swarm).counted()
}

// So does one whose newest commit names lists of pieces, and a pack of these is lost: also
// where it has to read the lists again.
func TestPieceOfTheIndexThatIsLostIsSaidAnew(t *testing.T) {
	for _, again := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			shape := func(e *writeback.Engine) { e.SetIndexShape(8, 2, 4) }
			var mu sync.Mutex // guards lost
			var lost map[place]bool
			isLost := func(p place) bool {
				mu.Lock()
				defer mu.Unlock()
				return lost[p]
			}
			d, want, _ := shapedIn(t, isLost, shape)
			d.recover()
			shape(d.engine)
			d.stores(1)
			if counted, err := d.table.Counted(); err != nil || !counted {
				t.Fatal("not counted", err)
			}
			if again {
				d.close()
				d.open(nil)
				shape(d.engine)
				synctest.Wait()
			}
			r, at := stranger(t, d.swarm), d.swarm.Head().Commit
			pieces := map[place]bool{}
			for _, s := range must(commit.Parse(must(r.At(ctx, at)))).Segments {
				if !s.Lists {
					continue
				}
				for _, p := range must(r.Pieces(ctx, s, at)) {
					pieces[place{p.At.Group, p.At.Number}] = true
				}
				for _, l := range s.Pieces {
					if l := l.At.In(at); pieces[place{l.Group, l.Number}] {
						t.Fatal("a list is in a pack of pieces")
					}
				}
			}
			if len(pieces) == 0 || pieces[place{at.Group, at.Number}] {
				t.Fatal("the index has no lists, or all in one pack")
			}
			mu.Lock()
			lost = pieces
			mu.Unlock()
			d.swarm.Lose(func(p group.PackRef) bool { return isLost(place{p.Group, p.Number}) })
			d.mends(want)
		})
	}
}

// One that cannot count them, as it needs that segment, cannot, and makes no commit for it.
func TestIndexThatIsLostBeforeItIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var larger place
		d, _, larger := restingIn(t, func(p place) bool { return p == larger })
		d.swarm.Lose(func(p group.PackRef) bool { return p.Group == larger.group && p.Number == larger.number })
		d.recover()
		if n, bytes := d.stores(24); n != 0 || bytes != 0 {
			t.Errorf("%d commits, %d bytes", n, bytes)
		}
		d.sync()
		if n, _ := d.stores(1); n != 0 || d.swarm.Head().Number != 2 {
			t.Errorf("a sync makes commit %d, of the same", d.swarm.Head().Number)
		}
	})
}

// Where no commit is found, however often it is said anew, they come less and less often.
func TestCommitsThatAreLostEachTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, want, _ := restingIn(t, func(place) bool { return true })
		d.recover()
		n, _ := d.stores(1)
		if more, _ := d.stores(4 * 24); n < 3 || more > 30 {
			t.Errorf("%d commits in the first hour, %d in four days", n, more)
		}
		check(t, d.committed(), want)
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

// badSector is a disk that does not give a part of one file.
type badSector struct {
	disk.FS
	name     string // the end of its name; empty for none
	from, to int64
}

type badFile struct {
	disk.File
	bad *badSector
}

func (b *badSector) Open(name string, flags int) (disk.File, error) {
	f, err := b.FS.Open(name, flags)
	if err == nil && b.name != "" && strings.HasSuffix(name, b.name) {
		f = badFile{f, b}
	}
	return f, err
}

func (f badFile) ReadAt(p []byte, off int64) (int, error) {
	if off < f.bad.to && off+int64(len(p)) > f.bad.from {
		return 0, syscall.EIO
	}
	return f.File.ReadAt(p, off)
}

// Of a pack that is only here, and of which the disk does not give a part, all else goes
// out, and the copy stays: the disk may give it another time.
func TestPackThatIsOnlyHereOnABadSector(t *testing.T) {
	d := openAbandoned(t)
	d.close()
	bad := &badSector{FS: disk.Local}
	d.packFS = bad
	d.open(nil)
	for i := range 300 {
		d.put(fmt.Sprintf("wide/%d", i), random(uint64(i), 400))
	}
	d.sync()
	at := d.swarm.Head().Commit // its own pack has none of the folders
	var most blocks.Pack
	err := d.table.Packs(func(p blocks.Pack) bool {
		if p.Kind == group.Metadata && (p.Group != at.Group || p.Number != at.Number) && p.Live > most.Live {
			most = p
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
	in := func() (out []blocks.Block) {
		for _, m := range must(d.table.Members(most.Group, most.Number)) {
			if m.Refs > 0 && m.Places[0].Group == most.Group && m.Places[0].Number == most.Number {
				out = append(out, m)
			}
		}
		return out
	}
	needed := in()
	if len(needed) < 10 {
		t.Fatalf("%d blocks are needed of the pack", len(needed))
	}
	victim := needed[len(needed)/10]
	bad.name = fmt.Sprintf("%s-%d", most.Group, most.Number)
	bad.from = int64(victim.Places[0].Offset)
	bad.to = bad.from + int64(victim.Places[0].Length)
	d.abandon(nil)
	for range 2 {
		d.sync()
		if left := in(); len(left) != 1 || left[0].Link != victim.Link {
			t.Errorf("%d of %d blocks are left", len(left), len(needed))
		}
	}
	before := d.swarm.Stored()
	d.sync()
	if n := d.swarm.Stored() - before; n != 0 {
		t.Errorf("%d bytes were stored of a drive that rests", n)
	}
	bad.name = ""
	d.sync()
	if left := in(); len(left) > 0 {
		t.Errorf("%d blocks are left, though the disk gives all", len(left))
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
