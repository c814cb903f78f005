package writeback_test

import (
	"context"
	"testing"

	"skep/cache/writeback"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/test/memswarm"
)

// crowded is a swarm of which some holders answer and have no room.
type crowded struct {
	*memswarm.Swarm
	all  []group.PeerKey
	full map[group.PeerKey]bool
}

func (c *crowded) Plan(context.Context, erasure.Class, group.Kind) (erasure.Coding, []group.PeerKey, error) {
	var slots []group.PeerKey
	for _, k := range c.all {
		if !c.full[k] && len(slots) < 2 {
			slots = append(slots, k)
		}
	}
	return erasure.NewCoding(1, 2), slots, nil
}

func (c *crowded) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	for _, k := range g.Slots {
		if c.full[k] {
			return group.SlotSet{}, writeback.ErrTooFew
		}
	}
	return c.Swarm.Store(ctx, g, lease, manifest, shards)
}

// Repair gave a slot of the group that packs are added to to somebody else. What is
// written then goes to other peers if the holders that the group has now are full.
func TestHoldersOfAMovedSlotAreFull(t *testing.T) {
	swarm := memswarm.New(5, 1, 2)
	sink := &crowded{Swarm: swarm, full: map[group.PeerKey]bool{}}
	for i := range 5 {
		swarm.Set(i, func(h *memswarm.Holder) { sink.all = append(sink.all, h.Key) })
	}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish, there: swarm.There}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	want := map[string]string{}
	put := d.putting(want)
	put("before", random(1, 1<<20))
	d.sync()
	swarm.Set(0, func(h *memswarm.Holder) { h.Down = true })
	for _, g := range must(d.table.Groups()) {
		for i, k := range g.Slots {
			if k != sink.all[0] {
				continue
			}
			if err := d.table.MoveSlot(g.ID, i, sink.all[2]); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, k := range sink.all[:3] {
		sink.full[k] = true
	}
	put("after", random(2, 1<<20))
	d.sync()
	check(t, d.committed(), want)
}
