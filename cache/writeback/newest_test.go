package writeback_test

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"skep/cache/tree"
	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// Before anybody sees a head it survives power loss that this commit is to be the
// newest; and before any holder hears that a pack is dead, that it is.
func TestNothingIsSaidThatPowerLossTakesBack(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm}
	heads, newest := 0, uint64(0) // newest: the batch that makes the head's commit the newest one
	d.publish = func(ctx context.Context, h commit.Head) error {
		if !d.st.Durable(d.st.Seq()) {
			t.Errorf("head %d is published, and could be forgotten", h.Number)
		}
		heads++
		newest = d.st.Seq() + 1
		return swarm.Publish(ctx, h)
	}
	buried := 0
	d.sink = &listening{swarm, func(g group.Group) {
		if g.Dead.Count() == 0 {
			return
		}
		buried++
		if !d.st.Durable(newest) {
			t.Errorf("a pack is called dead by a commit that power loss could take back")
		}
	}}
	d.open(newDrive)
	t.Cleanup(d.close)
	for i := range 3 {
		d.put("f", random(uint64(i), 2<<20))
		d.sync()
	}
	if err := d.tree.Unlink(ctx, tree.Root, "f"); err != nil {
		t.Fatal(err)
	}
	d.sync()
	if heads < 4 || buried == 0 {
		t.Errorf("%d heads were published, %d leases named dead packs", heads, buried)
	}
}

// listening tells of each lease before holders hear of it.
type listening struct {
	*memswarm.Swarm
	heard func(group.Group)
}

func (l *listening) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	l.heard(g)
	return l.Swarm.Lease(ctx, g, lease)
}

// As long as another device may be there, which may have given a former holder a slot,
// nobody is released; also one that was found to be alone long ago.
func TestNobodyIsReleasedBesideOthers(t *testing.T) {
	var looked atomic.Int64
	d := &device{t: t, dir: t.TempDir(), swarm: memswarm.New(9, 4, 7),
		alone: func(since time.Time) bool { return time.Unix(0, looked.Load()).After(since) }}
	d.open(newDrive)
	t.Cleanup(d.close)
	d.put("f", random(1, 1<<20))
	d.sync()
	g := must(d.table.Groups())[0]
	for ago, want := range map[time.Duration]bool{time.Minute: true, 2 * time.Hour: false} {
		looked.Store(time.Now().Add(-ago).UnixNano())
		word, err := d.engine.Release(ctx, g.ID, group.PeerKey{77}, group.AllPacks)
		if released := err == nil; released != want {
			t.Errorf("looked %v ago: %d bytes, %v", ago, len(word), err)
		}
	}
}
