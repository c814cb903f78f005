package writeback_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"skep/chunker/group"
	"skep/test/memswarm"
)

// onlooker is all holders together: what they see of packs, but for random names
// and what is sealed.
type onlooker struct {
	*memswarm.Swarm

	mu   sync.Mutex // guards seen
	seen []string
}

func (o *onlooker) see(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, fmt.Sprintf(format, args...))
}

func (o *onlooker) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	l, err := group.ParseLease(lease)
	if err != nil {
		return group.SlotSet{}, err
	}
	o.see("lease of %d bytes: %d packs of %d bytes in all, %d dead", len(lease), l.Packs, l.Bytes, l.Dead.Count())
	return o.Swarm.Lease(ctx, g, lease)
}

func (o *onlooker) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	m, err := group.ParseManifest(manifest)
	if err != nil {
		return group.SlotSet{}, err
	}
	lengths := ""
	for _, s := range shards {
		lengths += fmt.Sprint(" ", len(s))
	}
	o.see("pack %d of %v, %v, manifest of %d bytes, shards of%s", m.Number, m.Class, m.Coding, len(manifest), lengths)
	return o.Swarm.Store(ctx, g, lease, manifest, shards)
}

// What holders see of a drive follows from the size classes that its content and
// its metadata come to, and not from how many files there are, how long they and
// their names are, or in which folders.
func TestHoldersDoNotSeeTheShape(t *testing.T) {
	trees := map[string]func(d *device){
		"one file": func(d *device) { d.put("a", random(1, 2_900_000)) },
		"many in folders": func(d *device) {
			for i := range 58 {
				d.put(fmt.Sprintf("%s%d/%s/%s%d", strings.Repeat("long", 20), i%7, "below", strings.Repeat("name", 10), i), random(uint64(i+2), 50_000))
			}
		},
		"of all sizes": func(d *device) {
			d.put("large", random(3, 1_500_000))
			d.put("larger/than/it", random(4, 1_048_577))
			for i := range 30 {
				d.put(fmt.Sprint("small", i), random(uint64(i+90), 200+i*300))
			}
		},
	}
	var first []string
	for name, fill := range trees {
		swarm := memswarm.New(9, 4, 7)
		o := &onlooker{Swarm: swarm}
		d := &device{t: t, dir: t.TempDir(), swarm: swarm, sink: o, publish: swarm.Publish}
		d.open(newDrive)
		fill(d)
		d.sync()
		d.close()
		slices.Sort(o.seen) // content and metadata are on their way at once
		if first == nil {
			first = o.seen
			t.Logf("holders see\n\t%s", strings.Join(first, "\n\t"))
		}
		if !slices.Equal(o.seen, first) {
			t.Errorf("of %s, holders see\n\t%s", name, strings.Join(o.seen, "\n\t"))
		}
	}
}
