package health

import (
	"slices"
	"testing"
	"time"

	"skep/chunker/group"
)

// formerBench is a bench of 2 of 4 with a former holder of slot 0, the spare peer.
func formerBench(t *testing.T) (b *bench, former group.PeerKey) {
	former = key(101)
	return newBench(t, 2, 4, 1, func(_ *Config, g *Group) {
		g.Former = []group.Former{{Holder: former, Slot: 0}}
	}), former
}

// A former holder of a slot whose holder ends gets it back, and is released no more.
func TestFormerHolderGetsItsSlotBack(t *testing.T) {
	b, former := formerBench(t)
	b.away[key(1)] = true
	as := b.run(DefaultDeadAfter + time.Hour)
	a := b.one(as, Move, 0)
	if a.Peer != former {
		t.Fatalf("%v", a)
	}
	b.Moved(a, a.Packs, b.now)
	b.none(b.run(DefaultDeadAfter))
}

// While a slot is built at a former holder, it is not released, also when the holder
// of the slot is back.
func TestNoReleaseBesideAMove(t *testing.T) {
	b, former := formerBench(t)
	b.away[key(1)] = true
	move := b.one(b.run(DefaultDeadAfter+time.Hour), Move, 0)
	b.away[key(1)] = false
	b.Seen(key(1), b.now)
	as := b.run(time.Hour)
	if len(as) != 1 || as[0].Kind != Cancel {
		t.Fatalf("%v", as)
	}
	b.Failed(move, Ours, b.now)
	if a := b.one(b.run(time.Hour), Release, 0); a.Peer != former {
		t.Errorf("%v", a)
	}
}

// One that is out of reach is asked once, and again when it has answered anybody; one
// that refuses is asked less and less often. It gets no other slot meanwhile.
func TestReleasesAreRetried(t *testing.T) {
	b, former := formerBench(t)
	a := b.one(b.run(time.Hour), Release, 0)
	b.away[key(3)] = true // a slot needs a holder soon
	b.Unreleased(a, true, b.now)
	b.none(b.run(DefaultDeadAfter + day))
	b.Seen(former, b.now)
	var waits []time.Duration
	for range 8 {
		begin := b.now
		var as []Action
		for len(as) == 0 && b.now.Sub(begin) < DefaultDeadAfter {
			as = b.run(b.cfg.Tick())
		}
		b.Unreleased(b.one(as, Release, 0), false, b.now)
		waits = append(waits, b.now.Sub(begin))
	}
	if !slices.IsSorted(waits) || waits[7] < 8*waits[1] || waits[7] > b.cfg.lastRetry()+b.cfg.Tick() {
		t.Errorf("it was asked after %v", waits)
	}
	b.Released(b.one(b.run(b.cfg.lastRetry()+2*b.cfg.Tick()), Release, 0))
	if a := b.one(b.run(time.Hour), Move, 2); a.Peer != former {
		t.Errorf("%v", a)
	}
}
