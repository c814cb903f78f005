package daemon

import (
	"context"
	"errors"
	"time"

	"skep/cache/writeback"
	"skep/chunker/group"
	"skep/chunker/keyring"
)

// othersEvery is how often it is looked for commits of other devices.
const othersEvery = 10 * time.Minute

// othersHorizon is how long a device that publishes nothing any more is taken
// into account.
const othersHorizon = 60 * 24 * time.Hour

// watchOthers finds out whether commits are published that this device does not
// know, until ctx ends: those of another device, as when a drive was recovered and
// the computer that was thought lost came back, or of this one, if its disk was set
// back to an earlier state. What such a commit needs, and the newest one here does
// not, must not be given up.
func (d *drive) watchOthers(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		alone, err := d.isAlone(ctx)
		if err != nil {
			wait = min(max(2*wait, time.Second), time.Minute)
			continue
		}
		if !alone {
			d.log.Warn("there are commits of the drive that this device does not know, or may be: what they may need is not given up")
		}
		if was := d.alone.Swap(alone); alone && !was {
			d.engine.Changed() // what was kept until now may go, also if nothing else changes
		}
		wait = othersEvery
	}
}

// isAlone reports whether the newest commit here follows all that were published.
func (d *drive) isAlone(ctx context.Context) (bool, error) {
	begun, err := writeback.Begun(d.st)
	if err != nil {
		return false, err
	}
	return d.knowsAll(ctx, view{self: d.net.self, begun: begun, newest: d.engine.Progress().Number, now: time.Now()})
}

// knowsAll reports whether a view misses no head that was published.
func (d *drive) knowsAll(ctx context.Context, v view) (bool, error) {
	words := d.net.records.Get(ctx, slotKeys(keyring.KeyringSlots(d.keys.Root)))
	ring, err := keyring.OpenKeyring(d.keys.Root, words, 0)
	if errors.Is(err, keyring.ErrAbsent) && !d.recoveryOut.Load() {
		return true, nil // nobody can have recovered the drive
	}
	if err != nil {
		return false, err
	}
	own, ok := ring.Drive(d.id)
	if !ok {
		return false, errors.New("the keyring does not have the drive")
	}
	for _, found := range d.net.readHeads(ctx, &foundDrive{root: d.keys.Root, ring: ring, drive: own}) {
		switch {
		case errors.Is(found.err, keyring.ErrAbsent):
		case found.err != nil:
			return false, found.err
		case v.misses(found):
			return false, nil
		}
	}
	return true, nil
}

// view is what this device knows of commits.
type view struct {
	self          group.PeerKey
	begun, newest uint64 // number of the commit that it began with, and of the newest one
	now           time.Time
}

// misses reports whether a head leads to a commit that the newest one here does not
// follow, or so few of its copies were found that a newer one may.
func (v view) misses(f foundHead) bool {
	if f.head.Device == v.self {
		return f.head.Number > v.newest+1 // one may be on its way out
	}
	lives := f.until >= v.now.Add(headTime-othersHorizon).Unix()
	return lives && (f.head.Number > v.begun || f.few)
}
