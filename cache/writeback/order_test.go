package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"

	"skep/cache/blocks"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/test/memswarm"
)

// overtaking is a sink that refuses the first of the large packs, after another one has
// been stored that was sent later.
type overtaking struct {
	*memswarm.Swarm
	class erasure.Class

	mu     sync.Mutex // guards seen
	seen   bool
	begun  chan struct{} // closed when the first one is on its way
	stored chan struct{} // closed when another one is stored
	once   sync.Once     // closes stored
}

var errOvertaken = errors.New("refused")

func (o *overtaking) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if g.Kind != group.Metadata {
		return o.Swarm.Store(ctx, g, lease, manifest, shards)
	}
	o.mu.Lock()
	first := !o.seen && g.Class == o.class
	o.seen = o.seen || first
	o.mu.Unlock()
	if first {
		close(o.begun)
		select {
		case <-o.stored:
		case <-ctx.Done():
		}
		return group.SlotSet{}, errOvertaken
	}
	select {
	case <-o.begun:
	case <-ctx.Done():
	}
	set, err := o.Swarm.Store(ctx, g, lease, manifest, shards)
	o.once.Do(func() { close(o.stored) })
	return set, err
}

// No node is in the account before the nodes that it refers to, whichever pack comes
// first: who counts references anew after a crash would look for them for good.
func TestPacksEnterInOrder(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	sink := &overtaking{Swarm: swarm, class: 22, begun: make(chan struct{}), stored: make(chan struct{})}
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: sink, publish: swarm.Publish}
	d.open(newDrive)
	t.Cleanup(func() { d.close() })
	for i := range 8000 { // with the content in their records: more than one pack of them
		d.put(fmt.Sprintf("dir/%d", i), random(uint64(i), 500))
	}
	if err := d.engine.Sync(ctx); !errors.Is(err, errOvertaken) {
		t.Fatalf("sync: %v", err)
	}
	select {
	case <-sink.stored:
	default:
		t.Fatal("no pack overtook another: the test shows nothing")
	}
	err := d.table.Audit(nil, func(l link.Link) ([]link.Link, error) { return nil, nil }, func(f blocks.Fault) {
		if f.What == "is needed and lies nowhere" {
			t.Error(f)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}
