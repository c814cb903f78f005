package writeback_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/blocks"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/cache/writeback"
	"skep/chunker/commit"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// As long as another device may have commits that this one does not know, nothing
// is given up, nor moved for it; then all at once.
func TestNothingIsGivenUpBesideOthers(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	var alone atomic.Bool
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, alone: func(time.Time) bool { return alone.Load() }}
	d.open(newDrive)
	t.Cleanup(d.close)
	d.put("own", random(3, 1<<20))
	d.sync() // in a pack of its own
	d.put("f", random(1, 2<<20))
	d.put("keep", random(2, 400_000))
	d.sync()
	full, _ := swarm.Bytes()
	for _, name := range []string{"f", "own"} {
		if err := d.tree.Unlink(ctx, tree.Root, name); err != nil {
			t.Fatal(err)
		}
	}
	d.sync()
	before := swarm.Stored()
	d.put("tick", nil)
	d.sync()
	if moved := swarm.Stored() - before; moved > 1<<20 { // the commit itself takes half of that
		t.Errorf("%d bytes were stored for nothing", moved)
	}
	if left, _ := swarm.Bytes(); left < full {
		t.Errorf("%d of %d bytes are left", left, full)
	}
	if n := dead(t, d.swarm); n != 0 {
		t.Errorf("the newest commit calls %d packs dead", n)
	}
	if p := d.engine.Progress(); p.Waiting < 2 || p.WaitingBytes < 3<<20 || p.WaitingBytes > full {
		t.Errorf("told that %d packs with %d bytes wait", p.Waiting, p.WaitingBytes)
	}
	alone.Store(true)
	for i := range 2 { // the first folds, and gives up what that left
		d.put("tick", []byte{byte(i)})
		d.sync()
	}
	if p := d.engine.Progress(); p.Waiting != 0 || p.WaitingBytes != 0 {
		t.Errorf("told that %d packs with %d bytes wait still", p.Waiting, p.WaitingBytes)
	}
	if left, _ := swarm.Bytes(); left > full*3/4 {
		t.Errorf("%d of %d bytes are still there", left, full)
	}
	d.audit()
}

// What only others may need is kept by its holders: its files here go, so that they do
// not gather on a device that is not alone.
func TestFilesOfPacksDoNotGather(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	var alone atomic.Bool
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, alone: func(time.Time) bool { return alone.Load() }}
	d.open(newDrive)
	t.Cleanup(d.close)
	for i := range 20 {
		d.put("tick", []byte{byte(i)})
		d.sync()
	}
	needed, idle := 0, 0
	if err := d.table.Packs(func(p blocks.Pack) bool {
		if p.Live > 0 {
			needed++
		} else {
			idle++
		}
		return true
	}); err != nil {
		t.Fatal(err)
	}
	here := len(must(os.ReadDir(filepath.Join(d.dir, "packs"))))
	if idle < 10 || here > needed {
		t.Errorf("%d packs are needed, %d are not; %d files are here", needed, idle, here)
	}
	check(t, d.committed(), map[string]string{"tick": "\x13"})
	alone.Store(true)
	for i := range 2 { // the first folds, and gives up what that left
		d.put("tick", []byte{byte(i)})
		d.sync()
	}
	d.audit()
}

// Content was moved, and the packs that it left wait to be given up. None of it is let go
// of here because of those; and if the packs that have it now are lost by then, the others
// stay.
func TestPacksThatWaitAreNotCountedOnButKeptIfTheLast(t *testing.T) {
	swarm := memswarm.New(9, 1, 1)
	var alone, lost atomic.Bool
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, alone: func(time.Time) bool { return alone.Load() }}
	d.gone = func(id group.ID, n uint16) bool {
		g, _, err := d.table.Group(id)
		return err == nil && lost.Load() && g.Kind == group.Content && g.Coding.N > 1
	}
	d.open(newDrive)
	t.Cleanup(d.close)
	grown(t, d)
	d.strengthens()
	left := func() (n int) {
		if err := d.table.Packs(func(p blocks.Pack) bool {
			if g, _, err := d.table.Group(p.Group); err == nil && g.Kind == group.Content && g.Coding.N == 1 {
				n++
			}
			return true
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
	before := left()
	st := must(d.tree.ContentState(ctx, must(d.tree.Find(ctx, "five")).Ino))
	err := d.reader.Held(ctx, dag.File{Root: st.Content, Size: st.Size}, 0, 5, func(g group.Group, pk blocks.Pack) error {
		if g.Coding.N > 1 {
			return errors.New("too few of its holders answer")
		}
		return nil
	})
	if before == 0 || err == nil {
		t.Errorf("%d packs wait; what is here of them is said to be with holders: %v", before, err == nil)
	}
	lost.Store(true)
	alone.Store(true)
	for i := range 2 {
		d.put("tick", []byte{byte(i)})
		d.sync()
	}
	if n := left(); n != before {
		t.Errorf("%d of %d packs are left that have what is lost elsewhere", n, before)
	}
	for _, g := range d.listedGroups() {
		if g.Kind == group.Content && g.Coding.N == 1 && g.Dead.Count() > 0 {
			t.Errorf("the newest commit calls %d of them dead", g.Dead.Count())
		}
	}
	lost.Store(false)
	for i := range 2 {
		d.put("tick", []byte{byte(2 + i)})
		d.sync()
	}
	if n := left(); n != 0 {
		t.Errorf("%d of %d packs are still there", n, before)
	}
	d.audit()
}

// dead counts the packs that the newest commit calls dead.
func dead(t *testing.T, swarm *memswarm.Swarm) (n int) {
	t.Helper()
	st := must(state.Open(t.TempDir()))
	defer st.Close()
	r := readthrough.New(blocks.New(st), nil, swarm, names)
	head := swarm.Head().Commit
	c := must(commit.Parse(must(r.At(ctx, head))))
	for _, l := range c.Groups {
		for _, g := range must(commit.DecodeGroups(must(r.At(ctx, l.In(head))))) {
			n += g.Dead.Count()
		}
	}
	return n
}

// Somebody may have joined the drive between the last look around and the newest
// commit, and have begun with the one before: what only that needs is given up when
// somebody has looked once more, then also if nothing else changes, and also if commits
// go on all the time.
func TestNothingIsGivenUpBeforeAnotherLook(t *testing.T) {
	for _, goesOn := range []bool{false, true} {
		swarm := memswarm.New(9, 4, 7)
		var looked atomic.Int64
		sink := &burial{swarm, make(chan struct{}, 1)}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish,
			alone: func(since time.Time) bool { return time.Unix(0, looked.Load()).After(since) }}
		if !goesOn {
			d.timing = writeback.Timing{Quiet: time.Millisecond, Most: time.Millisecond, Retry: time.Hour}
		}
		look := func() { looked.Store(time.Now().UnixNano()) }
		look()
		d.open(newDrive)
		t.Cleanup(d.close)
		d.put("f", random(1, 2<<20))
		d.sync() // in a pack of its own
		d.put("keep", random(2, 400_000))
		d.sync()
		full, _ := swarm.Bytes()
		look()
		if err := d.tree.Unlink(ctx, tree.Root, "f"); err != nil {
			t.Fatal(err)
		}
		d.sync()
		d.sync()
		if left, _ := swarm.Bytes(); left < full-2<<20 {
			t.Errorf("%d of %d bytes are left, though nobody has looked since", left, full)
		}
		look()
		if goesOn {
			d.put("tick", nil)
			d.sync()
		} else {
			d.engine.Looked()
		}
		for late := time.After(time.Minute); ; {
			if left, _ := swarm.Bytes(); left < full-2<<20 {
				break
			}
			select {
			case <-sink.buried:
			case <-late:
				t.Fatalf("goes on %v: it is still there", goesOn)
			}
		}
	}
}

// burial tells of each lease that calls a pack dead.
type burial struct {
	*memswarm.Swarm
	buried chan struct{}
}

func (b *burial) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	set, err := b.Swarm.Lease(ctx, g, lease)
	if g.Dead.Count() > 0 {
		select {
		case b.buried <- struct{}{}:
		default: // whoever waits will look again anyway
		}
	}
	return set, err
}
