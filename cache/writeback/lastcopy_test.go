package writeback_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// presuming is a device that was recovered just now: of what was stored before, no holder
// has said yet that it is there.
func presuming(t *testing.T, swarm *memswarm.Swarm) *device {
	t.Helper()
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, number: 1}
	d.presume()
	return d
}

// presume opens a device like that.
func (d *device) presume() {
	d.t.Helper()
	d.said = func(p blocks.Pack) int { return p.Acked.Count() }
	d.recover()
	d.counted()
	d.sync()
}

// allSay has the holders of all packs say that they have their shards.
func (d *device) allSay() {
	d.t.Helper()
	for _, g := range must(d.table.Groups()) {
		for n := range g.Packs {
			err := d.table.UpdatePack(g.ID, n, func(p *blocks.Pack) {
				for i := range g.Slots {
					p.Acked.Add(i)
				}
			})
			if err != nil {
				d.t.Fatal(err)
			}
		}
	}
}

// idle are the packs of which nothing is needed, as far as the device knows.
func (d *device) idle() (out []place) {
	d.t.Helper()
	for id, packs := range must(d.table.Idle()) {
		for n := range uint16(group.MaxPacks) {
			if packs.Has(n) {
				out = append(out, place{id, n})
			}
		}
	}
	return out
}

// What was only here went out again, and the device is lost right after the sync. One that
// takes its place finds each block in two packs, and may take the one that is gone for its
// home: it gives up neither before holders have said what they have.
func TestRecoveredDeviceKeepsWhatWentOutAgain(t *testing.T) {
	a, want := newAbandoned(t)
	a.abandon(nil)
	a.sync()
	check(t, a.committed(), want)
	b := presuming(t, a.swarm)
	if len(b.idle()) == 0 {
		t.Fatal("no pack is thought to be of no use")
	}
	b.put("new", []byte("note"))
	b.sync()
	want["new"] = "note"
	check(t, b.committed(), want)
	c := presuming(t, a.swarm) // what that commit calls dead is dead to others
	c.put("newer", []byte("note"))
	c.sync()
	want["newer"] = "note"
	check(t, c.committed(), want)
}

// The same for content of which a part went out again, and the rest is with nobody.
func TestRecoveredDeviceKeepsContentThatWentOutAgain(t *testing.T) {
	a := newLosing(t, false)
	want := map[string]string{}
	put := a.putting(want)
	for i := range 3 {
		put(fmt.Sprint("here", i), random(uint64(20+i), 900_000))
	}
	put("away", random(4, 1<<20))
	a.sync()
	if n, err := a.tree.Evict(ctx, a.inode("away"), false); err != nil || n == 0 {
		t.Fatal(n, err)
	}
	if err := a.tree.FinishEvictions(ctx); err != nil {
		t.Fatal(err)
	}
	a.lose(group.Content)
	if found := a.look(); found.Again == 0 {
		t.Fatal("nothing goes out again")
	}
	a.sync()
	a.sync()
	for range 2 {
		b := presuming(t, a.swarm)
		b.put("new", []byte("note"))
		b.sync()
		for i := range 3 {
			name := fmt.Sprint("here", i)
			f := must(b.tree.Open(ctx, must(b.tree.Find(ctx, name)).Ino, 0))
			got := make([]byte, len(want[name]))
			if n, err := f.ReadAt(ctx, got, 0); err != nil || string(got) != want[name] {
				t.Errorf("%s: %d bytes: %v", name, n, err)
			}
			f.Release()
		}
	}
}

// What was stored twice is given back when holders have said that they have it, at the next
// look around, though nothing else changes.
func TestRecoveredDeviceGivesBackWhatHoldersHaveTwice(t *testing.T) {
	a, want := newAbandoned(t)
	a.mu.Lock()
	for _, p := range a.swarm.Packs() { // it is mistaken: they have them
		a.gone[place{p.Group, p.Number}] = true
	}
	a.mu.Unlock()
	a.sync()
	sink := &burial{a.swarm, make(chan struct{}, 1)}
	b := &device{t: t, dir: t.TempDir(), swarm: a.swarm, number: 1, sink: sink, publish: a.swarm.Publish,
		timing: writeback.Timing{Quiet: time.Millisecond, Most: time.Millisecond, Retry: time.Hour}}
	b.presume()
	idle := b.idle()
	if len(idle) == 0 {
		t.Fatal("no pack is thought to be of no use")
	}
	left := func() (n int) {
		for _, p := range a.swarm.Packs() {
			if slices.Contains(idle, place{p.Group, p.Number}) {
				n++
			}
		}
		return n
	}
	b.engine.Looked()
	b.sync()
	if n := left(); n != len(idle) {
		t.Fatalf("%d of %d packs are left before anybody said a word", n, len(idle))
	}
	b.allSay()
	b.engine.Looked()
	for late := time.After(time.Minute); left() > 0; {
		select {
		case <-sink.buried:
		case <-late:
			t.Fatalf("%d of %d packs are left of which nothing is needed", left(), len(idle))
		}
	}
	check(t, b.committed(), want)
}

// Packs that are only here, and that another device may need, stay here after what this
// one needs of them went out again; those that holders have do not.
func TestPacksThatWaitStayIfNobodyElseHasThem(t *testing.T) {
	d, _ := newAbandoned(t)
	d.abandon(nil)
	here := func(p place) bool {
		_, err := d.packs.Get(p.group, p.number)
		return err == nil
	}
	for p := range d.gone {
		if !here(p) {
			t.Fatalf("pack %d is not here", p.number)
		}
	}
	d.sync()
	if n := d.engine.Progress().Waiting; n != len(d.gone) {
		t.Fatalf("%d of %d packs wait", n, len(d.gone))
	}
	for p := range d.gone {
		if !here(p) {
			t.Errorf("pack %d of group %v is nowhere any more", p.number, p.group)
		}
	}
	d.put("new", nil)
	d.sync() // the commit before, and its tables, are with holders
	for _, p := range d.idle() {
		if !d.gone[p] && here(p) {
			t.Errorf("pack %d of group %v is here, and holders have it", p.number, p.group)
		}
	}
}
