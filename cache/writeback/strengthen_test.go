package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/blocks"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// grown is a drive that was written while one peer was known. Then eight more come.
func grown(t *testing.T, d *device) (want map[string]string) {
	t.Helper()
	want = map[string]string{}
	put := d.putting(want)
	put("five", random(1, 5<<20))
	for i := range 100 {
		put(fmt.Sprint("small", i), random(uint64(10+i), 20_000))
	}
	d.sync()
	put("note", []byte("note"))
	d.sync()
	if n := d.frail(); n == 0 {
		t.Fatal("nothing lies with one peer alone")
	}
	d.swarm.Recode(4, 7)
	return want
}

// frail is how many packs that are needed survive the loss of no holder.
func (d *device) frail() (n int) {
	d.t.Helper()
	err := d.table.Packs(func(p blocks.Pack) bool {
		g, _, err := d.table.Group(p.Group)
		if err != nil {
			d.t.Error(err)
		}
		if p.Live > 0 && g.Coding.N == g.Coding.K {
			n++
		}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// strengthens syncs until nothing is frail, and returns how often.
func (d *device) strengthens() int {
	d.t.Helper()
	for n := 0; n < 8; n++ {
		if d.frail() == 0 {
			return n
		}
		d.sync()
	}
	d.t.Fatalf("%d packs are with one peer alone", d.frail())
	return 0
}

// A drive that was written while one peer was known survives the loss of that peer
// when others have come, though there may be another device; also on one that was
// recovered and has none of the content.
func TestWhatOnePeerHadIsStoredAgainWithMore(t *testing.T) {
	for _, bare := range []bool{false, true} {
		t.Run(fmt.Sprintf("recovered=%v", bare), func(t *testing.T) {
			swarm := memswarm.New(9, 1, 1)
			d := &device{t: t, dir: t.TempDir(), swarm: swarm, alone: func(time.Time) bool { return false }}
			d.open(newDrive)
			want := grown(t, d)
			on := d
			if bare {
				d.close()
				on = recovered(t, swarm)
				on.counted()
			} else {
				t.Cleanup(d.close)
			}
			on.strengthens()
			before := swarm.Stored()
			on.sync()
			on.sync()
			if n := swarm.Stored() - before; n != 0 {
				t.Errorf("%d bytes were stored of a drive that rests", n)
			}
			swarm.Wipe(0)
			check(t, on.committed(), want)
		})
	}
}

// It goes on where it was when the device is opened again, and moves a bounded part
// with each commit, what is needed to find the rest first.
func TestWhatOnePeerHadIsMovedInParts(t *testing.T) {
	swarm := memswarm.New(9, 1, 1)
	d := newDevice(t, swarm)
	want := map[string]string{}
	put := d.putting(want)
	for i := range 10 {
		put(fmt.Sprint("large", i), random(uint64(i), 4_000_000))
	}
	d.sync()
	swarm.Recode(4, 7)
	put("tick", []byte("tick"))
	d.sync()
	for _, g := range must(d.table.Groups()) {
		for n := range g.Packs {
			p, _, _ := d.table.Pack(g.ID, n)
			if g.Kind == group.Metadata && g.Coding.N == 1 && p.Live > 0 {
				t.Errorf("a pack of metadata is with one peer alone after the first commit")
			}
		}
	}
	d.sync()
	if d.frail() == 0 {
		t.Error("all was moved at once")
	}
	d.close()
	d.open(nil)
	d.strengthens()
	swarm.Wipe(0)
	check(t, d.committed(), want)
	d.audit()
}

// While most peers are away, what is written goes to those that are there, and from
// there to the others when they are back: to the group that they had.
func TestOutageLeavesNothingWithOnePeer(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := newDevice(t, swarm)
	want := map[string]string{}
	put := d.putting(want)
	put("before", random(1, 2<<20))
	d.sync()
	groups := 0
	for i := range 5 {
		for p := 1; p < 9; p++ {
			swarm.Set(p, func(h *memswarm.Holder) { h.Down = true })
		}
		swarm.Recode(1, 1)
		put("meanwhile", random(uint64(2+i), 1<<20))
		put(fmt.Sprint("note", i), []byte("note"))
		d.sync()
		for p := 1; p < 9; p++ {
			swarm.Set(p, func(h *memswarm.Holder) { h.Down = false })
		}
		swarm.Recode(4, 7)
		put("after", random(uint64(20+i), 1<<20))
		d.sync()
		d.strengthens()
		must(d.engine.RenewLeases(ctx)) // lets go of groups that are over
		if n := len(must(d.table.Groups())); i == 1 {
			groups = n
		} else if i > 1 && n > groups {
			t.Errorf("%d groups after %d outages, %d after two", n, i+1, groups)
		}
	}
	swarm.Wipe(0)
	check(t, d.committed(), want)
	d.audit()
}

// unable is a sink whose holders take no pack of a group of seven, as long as it is
// said so.
type unable struct {
	*memswarm.Swarm
	is    atomic.Bool
	tries atomic.Int64
}

func (u *unable) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if u.is.Load() && g.Coding.N > 1 {
		u.tries.Add(1)
		return group.SlotSet{}, writeback.ErrTooFew
	}
	return u.Swarm.Store(ctx, g, lease, manifest, shards)
}

// Where holders that could be better take nothing, what is written goes out as it did
// before, and they are tried ever more seldom; when they can, all is moved, though
// nothing is written, and the drive rests.
func TestBetterHoldersThatTakeNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		swarm := memswarm.New(9, 1, 1)
		sink := &unable{Swarm: swarm}
		var published atomic.Int64
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, timing: writeback.DefaultTiming}
		d.publish = func(ctx context.Context, h commit.Head) error {
			published.Add(1)
			return swarm.Publish(ctx, h)
		}
		d.open(newDrive)
		defer func() {
			d.close()
			time.Sleep(time.Minute) // the index ends a little later
		}()
		sink.is.Store(true)
		want := grown(t, d)
		put := d.putting(want)
		for i := range 3 {
			put("note", []byte{byte(i)})
			d.sync()
			time.Sleep(10 * time.Minute)
		}
		before := published.Load()
		time.Sleep(24 * time.Hour)
		if n := sink.tries.Load(); n == 0 || n > 200 {
			t.Errorf("%d packs were brought in vain", n)
		}
		if n := published.Load() - before; n > 30 {
			t.Errorf("%d commits in vain", n)
		}
		if n := len(must(d.table.Groups())); n > 40 {
			t.Errorf("%d groups", n)
		}
		check(t, d.committed(), want)
		sink.is.Store(false)
		time.Sleep(8 * time.Hour)
		synctest.Wait()
		if n := d.frail(); n != 0 {
			t.Errorf("%d packs are with one peer alone", n)
		}
		before = published.Load()
		time.Sleep(12 * time.Hour)
		if n := published.Load() - before; n != 0 {
			t.Errorf("%d commits of a drive that rests", n)
		}
		swarm.Wipe(0)
		check(t, d.committed(), want)
	})
}

// lax is a sink for which a pack is out as soon as it can be read. As long as it is said
// so, it plans with nobody.
type lax struct {
	*memswarm.Swarm
	planless atomic.Bool
}

func (l *lax) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	set, err := l.Swarm.Store(ctx, g, lease, manifest, shards)
	if errors.Is(err, writeback.ErrTooFew) && set.Count() >= int(g.Coding.K) {
		err = nil
	}
	return set, err
}

func (l *lax) Plan(ctx context.Context, class erasure.Class, kind group.Kind) (erasure.Coding, []group.PeerKey, error) {
	if l.planless.Load() {
		return erasure.Coding{}, nil, writeback.ErrTooFew
	}
	return l.Swarm.Plan(ctx, class, kind)
}

// fullUp is a sink whose holders have room for metadata alone, but for the first one.
type fullUp struct{ *memswarm.Swarm }

func (f fullUp) Plan(ctx context.Context, class erasure.Class, kind group.Kind) (erasure.Coding, []group.PeerKey, error) {
	coding, slots, err := f.Swarm.Plan(ctx, class, kind)
	if err == nil && kind == group.Content {
		coding, slots = erasure.NewCoding(1, 1), slots[:1]
	}
	return coding, slots, err
}

func (f fullUp) weak(class erasure.Class, kind group.Kind, c erasure.Coding) bool {
	best, _, err := f.Plan(ctx, class, kind)
	return err == nil && c.N-c.K < best.N-best.K
}

// Where holders have come that have room for metadata alone, that is stored again with them,
// and content stays where it is; then the drive rests.
func TestMetadataAloneIsStoredAgainWithMore(t *testing.T) {
	swarm := memswarm.New(9, 1, 1)
	sink := fullUp{swarm}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish, weak: sink.weak}
	d.open(newDrive)
	t.Cleanup(d.close)
	want := grown(t, d)
	for range 4 {
		d.sync()
	}
	for _, g := range must(d.table.Groups()) {
		for n := range g.Packs {
			p, _, _ := d.table.Pack(g.ID, n)
			if p.Live > 0 && (g.Coding.N == 1) != (g.Kind == group.Content) {
				t.Errorf("a pack of %v is stored in %v", g.Kind, g.Coding)
			}
		}
	}
	stored, heads := swarm.Stored(), swarm.Published()
	d.sync()
	d.sync()
	if n := swarm.Stored() - stored; n != 0 || swarm.Published() != heads {
		t.Errorf("%d bytes were stored, and %d heads published, of a drive that rests", n, swarm.Published()-heads)
	}
	check(t, d.committed(), want)
}

// numbers is how many packs were begun.
func (d *device) numbers() (n int) {
	for _, g := range must(d.table.Groups()) {
		n += int(g.Packs)
	}
	return n
}

// thin is how many packs that are needed have no more shards than that takes.
func (d *device) thin() (n int) {
	d.t.Helper()
	err := d.table.Packs(func(p blocks.Pack) bool {
		g, _, err := d.table.Group(p.Group)
		if err != nil {
			d.t.Error(err)
		}
		if p.Live > 0 && p.Acked.Count() <= int(g.Coding.K) {
			n++
		}
		return true
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

// What went out while nobody had noticed that one of its two holders is away lies with
// the other alone. It is stored again with two as soon as two are there, and until then
// no number is used up for it; nor does anything else go to the one that is away.
func TestPackOfWhichAHolderWasAway(t *testing.T) {
	swarm := memswarm.New(3, 1, 2)
	sink, noticed := &lax{Swarm: swarm}, false
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish}
	d.live = func(_ group.Group, p blocks.Pack) int { return p.Acked.Count() }
	d.there = func(g group.Group) int {
		if noticed {
			return swarm.There(g)
		}
		return int(g.Coding.N)
	}
	d.open(newDrive)
	t.Cleanup(d.close)
	want := map[string]string{}
	put := d.putting(want)
	put("before", random(1, 1<<20))
	d.sync()
	if n := d.thin(); n > 0 {
		t.Fatalf("%d packs are with one holder while all are there", n)
	}
	swarm.Set(1, func(h *memswarm.Holder) { h.Down = true })
	put("meanwhile", random(2, 1<<20))
	d.sync()
	if d.thin() == 0 {
		t.Fatal("nothing is with one holder alone")
	}
	noticed = true
	sink.planless.Store(true)
	numbers := d.numbers()
	d.sync()
	d.sync()
	if n := d.numbers() - numbers; n > 0 {
		t.Errorf("%d numbers were used up while nobody else took anything", n)
	}
	sink.planless.Store(false)
	put("after", random(3, 1<<20))
	d.sync()
	d.sync()
	if n := d.thin(); n > 0 {
		t.Errorf("%d packs are with one holder still", n)
	}
	stored := swarm.Stored()
	d.sync()
	if n := swarm.Stored() - stored; n > 0 {
		t.Errorf("%d bytes were stored of a drive that rests", n)
	}
	swarm.Set(1, func(h *memswarm.Holder) { h.Down = false })
	swarm.Wipe(0)
	check(t, d.committed(), want)
}
