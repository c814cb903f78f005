package e2e

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"skep/cmd/skep/control"
	"skep/test/harness"
)

// A holder that was away until its slot went to somebody else comes back with its
// disk: it is rid of what it has when a file is deleted, as all others are; and when
// another holder ends then, the only spare peer is this one, and takes its place.
func TestHolderThatCameBack(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5, DeadAfter: 15 * time.Second})
	d := swarm.NewDevice(t)
	d.Mount(t)
	must(t, os.WriteFile(d.Path("big"), harness.Noise(rand.New(rand.NewPCG(5, 5)), 24<<20), 0o644))
	d.Sync(t) // so that no pack has something of both
	must(t, os.WriteFile(d.Path("stays"), harness.Noise(rand.New(rand.NewPCG(6, 6)), 1<<20), 0o644))
	d.Sync(t)
	d.WaitSafe(t, time.Minute)

	away := holderAway(t, swarm, d)
	away.Start(t)
	harness.Until(t, 2*time.Minute, "the holder that came back gives up what is not its any more", func() (bool, string) {
		n := away.Hosted(t)
		return n < 1<<20 || holds(d.Status(t), away), fmt.Sprintf("%d bytes are there", n) // or somebody else was too slow meanwhile
	})

	next := holderAway(t, swarm, d)
	if n := away.Hosted(t); n < 2<<20 {
		t.Errorf("the peer that came back was given %d bytes of the slots of the one that went", n)
	}
	must(t, os.Remove(d.Path("big")))
	d.Sync(t)
	next.Start(t)
	for _, p := range swarm.Peers {
		harness.Until(t, 2*time.Minute, "what was deleted is gone from every peer", func() (bool, string) {
			n := p.Hosted(t)
			return n < 4<<20, fmt.Sprintf("%s has %d bytes", p.ID(), n)
		})
	}
	d.WaitSafe(t, 2*time.Minute)
}

// holderAway ends a peer that holds something, and returns it when all that it had
// is safe without it.
func holderAway(t *testing.T, swarm *harness.Swarm, d *harness.Device) *harness.Peer {
	t.Helper()
	var most *harness.Peer
	for _, p := range swarm.Peers {
		if p.Running() && (most == nil || p.Hosted(t) > most.Hosted(t)) {
			most = p
		}
	}
	most.Kill()
	d.WaitStatus(t, 2*time.Minute, "the slots of "+most.ID()+" have gone to others", func(s control.Status) bool {
		return !holds(s, most) && harness.Safe(s)
	})
	return most
}

// holds reports whether a peer is a holder, as the drive has it.
func holds(s control.Status, p *harness.Peer) bool {
	return slices.ContainsFunc(s.Peers, func(known control.Peer) bool { return known.ID == p.ID() && known.Shards > 0 })
}
