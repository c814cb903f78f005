package writeback_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/test/memswarm"
)

const day = 24 * time.Hour

// idle is a drive with a few files at which nothing changes any more, on a
// clock of its own.
type idle struct {
	*device
	want map[string]string

	mu    sync.Mutex // guards clock
	clock time.Time
}

func newIdle(t *testing.T) *idle {
	swarm := memswarm.New(9, 4, 7)
	i := &idle{clock: time.Now(), want: map[string]string{"d/": ""}}
	swarm.Now = i.time
	i.device = newDevice(t, swarm)
	i.device.close()
	i.device.now = swarm.Now
	i.device.open(nil)
	for n := range 3 {
		name := fmt.Sprintf("d/f%d", n)
		b := random(uint64(n), 400_000<<n)
		i.put(name, b)
		i.want[name] = string(b)
		i.sync()
	}
	return i
}

func (i *idle) time() time.Time {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.clock
}

func (i *idle) nextDay() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.clock = i.clock.Add(day)
}

// pass lets days go by. With the owner, the device looks after its leases.
func (i *idle) pass(days int, owner bool) {
	i.t.Helper()
	for range days {
		i.nextDay()
		if owner {
			if _, err := i.engine.RenewLeases(ctx); err != nil {
				i.t.Fatal(err)
			}
		}
		i.swarm.Collect()
	}
}

func TestLeasesAreRenewedWhileADriveRests(t *testing.T) {
	i := newIdle(t)
	_, before := i.swarm.Bytes()
	i.pass(730, true)
	if _, shards := i.swarm.Bytes(); shards != before {
		t.Errorf("after two years with the owner, %d of %d shards are left", shards, before)
	}
	check(t, i.committed(), i.want)
	i.pass(365, false)
	if _, shards := i.swarm.Bytes(); shards != before {
		t.Errorf("after another year without him, %d of %d shards are left", shards, before)
	}
	check(t, i.committed(), i.want)
	i.pass(60, false)
	if _, shards := i.swarm.Bytes(); shards != 0 {
		t.Errorf("after the leases have ended, %d shards are left", shards)
	}
}

// Leases are renewed no more often than every few weeks.
func TestRenewingIsRare(t *testing.T) {
	i := newIdle(t)
	groups, err := i.table.Groups()
	if err != nil {
		t.Fatal(err)
	}
	total := 0
	for range 365 {
		i.nextDay()
		n, err := i.engine.RenewLeases(ctx)
		if err != nil {
			t.Fatal(err)
		}
		total += n
	}
	if total < 11*len(groups) || total > 16*len(groups) {
		t.Errorf("%d groups: %d leases were made in a year", len(groups), total)
	}
}

// A device that was recovered does not know how often leases were renewed: its
// own count more nevertheless.
func TestLeaseOfARecoveredDeviceCounts(t *testing.T) {
	i := newIdle(t)
	groups, err := i.table.Groups()
	if err != nil {
		t.Fatal(err)
	}
	i.pass(100, true)
	i.pass(300, false)
	for _, g := range groups { // as the commit's table has them, from before
		if err := i.table.PutGroup(g); err != nil {
			t.Fatal(err)
		}
	}
	i.pass(365, true)
	check(t, i.committed(), i.want)
}

// A head that was published in part has been seen: its number is not used for
// another, neither after an error nor after the process has ended.
func TestNumberOfAHeadIsUsedOnce(t *testing.T) {
	for _, crash := range []bool{false, true} {
		swarm := memswarm.New(9, 4, 7)
		d := newDevice(t, swarm)
		d.close()
		seen := map[uint64]commit.Head{}
		fail := false
		d.publish = func(ctx context.Context, h commit.Head) error {
			if old, ok := seen[h.Number]; ok && old != h {
				t.Errorf("crash %v: number %d was used for two heads", crash, h.Number)
			}
			seen[h.Number] = h
			if fail {
				return errors.New("the network went after some had it")
			}
			return swarm.Publish(ctx, h)
		}
		d.open(nil)
		for n := range 6 {
			d.put("f", random(uint64(n), 3000))
			fail = n%3 != 2
			if err := d.engine.Sync(ctx); (err != nil) != fail {
				t.Fatal(err)
			}
			if crash {
				d.close()
				d.open(nil)
			}
		}
		check(t, d.committed(), map[string]string{"f": string(random(5, 3000))})
	}
}

// durable is a sink that sees no pack whose number a power loss would give out
// again.
type durable struct {
	*memswarm.Swarm
	d *device
}

func (s *durable) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	if !s.d.st.Durable(s.d.st.Seq()) {
		s.d.t.Errorf("pack %d of group %v is stored, and its number not on the disk", g.Packs-1, g.ID)
	}
	return s.Swarm.Store(ctx, g, lease, manifest, shards)
}

// Holders take one manifest a number: what they were brought under it before the
// power went, no other pack may be called.
func TestNumberOfAPackIsUsedOnce(t *testing.T) {
	swarm := memswarm.New(9, 4, 7)
	d := &device{t: t, dir: t.TempDir(), swarm: swarm, publish: swarm.Publish}
	d.sink = &durable{swarm, d}
	d.open(newDrive)
	t.Cleanup(d.close)
	for n := range 3 {
		d.put(fmt.Sprint("f", n), nil) // so that one pack goes after the other
		d.sync()
	}
}
