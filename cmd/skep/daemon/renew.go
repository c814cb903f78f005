package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"skep/chunker/commit"
	"skep/chunker/devices"
	"skep/chunker/keyring"
	"skep/net/swarm"
)

// How long slot records are wanted without another word of their owner. They
// are put again every week, so that they last for more than a year from when he
// was last there.
const (
	headTime     = 400 * 24 * time.Hour      // of heads and keyrings
	recoveryTime = 50 * 365 * 24 * time.Hour // keepers bound it
	recordsEvery = 7 * 24 * time.Hour
)

// Leases are looked at every hour, and again soon while more of them are due
// than are renewed at once.
const (
	leasesEvery = time.Hour
	leasesSoon  = time.Minute
)

// keepFindable brings the recovery record, the keyring and the newest head to
// keepers, the first two at once after they changed, and all again every week, and
// when so many peers have come that others are to keep them, also while the drive
// rests, until ctx ends.
func (d *drive) keepFindable(ctx context.Context) error {
	wait := time.Duration(0)
	for due := true; ; {
		grew := d.awaitPeers(ctx, wait)
		if ctx.Err() != nil {
			return nil
		}
		err := d.bringRecords(ctx, due && !grew)
		if ctx.Err() != nil {
			return nil
		}
		if due = err == nil; err != nil {
			d.log.Info("the recovery record is not out yet", "err", err)
			wait = min(max(2*wait, time.Second), time.Minute)
			continue
		}
		wait = recordsEvery
	}
}

// lookForPeers is how often it is looked whether the swarm grew.
const lookForPeers = 10 * time.Minute

// awaitPeers waits for some time, and reports whether it ended before, as the swarm grew.
func (d *drive) awaitPeers(ctx context.Context, wait time.Duration) (grew bool) {
	for due := time.Now().Add(wait); ctx.Err() == nil && time.Now().Before(due); {
		if wait == recordsEvery && d.swarmGrew() {
			return true
		}
		select {
		case <-ctx.Done():
		case <-time.After(min(time.Until(due), lookForPeers)):
		}
	}
	return false
}

// bringRecords does once what keepFindable does. At each beginning of it, the device's
// certificate is renewed. A device that was set back publishes no head, and is done
// without one. It does not wait for those that are silent when most have answered, as
// nothing is called safe before: of a keyring that it misses so, the next look hears.
func (d *drive) bringRecords(ctx context.Context, begins bool) error {
	ctx = swarm.Linger(ctx, silentFor)
	peers := d.net.usables()
	if begins {
		if err := d.renewCertificate(ctx, time.Now().Add(-recordsEvery)); err != nil {
			return err
		}
	}
	if err := d.publishRecovery(ctx); err != nil {
		return err
	}
	if err := d.publishNewestHead(ctx); err != nil && d.setBack.Load() == nil {
		return err
	}
	d.keptWith.Store(int64(peers))
	return nil
}

// fewKeepers is up to how many peers each of them may keep a good part of the copies
// of a record.
const fewKeepers = 32

// swarmGrew reports whether there are twice as many peers as when the records were
// brought to some last, and those were few: they alone have all copies.
func (d *drive) swarmGrew() bool {
	before := d.keptWith.Load()
	return before <= fewKeepers && int64(d.net.usables()) >= max(1, 2*before)
}

// publishRecovery brings the recovery record and the keyring to keepers, joined with
// the one that they have.
func (d *drive) publishRecovery(ctx context.Context) error {
	if !d.net.anybody() {
		return errNoPeer
	}
	if err := d.publishing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer d.publishing.Release(1)
	if _, err := d.net.records.Put(ctx, d.recover.Recovery); err != nil {
		return err
	}
	ring, err := d.net.shareRing(ctx, d.keys.Root, *d.shared.Load())
	if err == nil && !ring.Names(d.keys.Root, d.net.self) { // it has given way to newer ones, and is there all the same
		ring, err = d.net.shareRing(ctx, d.keys.Root, withOwn(ring, d.keys, d.prefix))
	}
	if err != nil {
		return err
	}
	d.shared.Store(&ring)
	if d.recover.Keyring, err = sealRing(d.keys.Root, ring); err != nil {
		return err
	}
	if err := d.recover.save(d.home); err != nil {
		return err
	}
	d.isOut()
	return nil
}

// renewCertificate certifies this device anew, if its certificate was made before a time,
// or by a clock that was ahead: so others see that it is there, also if it makes no commit.
func (d *drive) renewCertificate(ctx context.Context, before time.Time) error {
	if err := d.publishing.Acquire(ctx, 1); err != nil {
		return err
	}
	defer d.publishing.Release(1)
	ring, now := *d.shared.Load(), time.Now()
	for _, dev := range ring.Known(d.keys.Root) {
		if made := time.Unix(dev.Created, 0); dev.Key == d.net.self && (made.After(now) || !made.After(before)) {
			ring = withOwn(ring, d.keys, d.prefix)
			d.shared.Store(&ring)
		}
	}
	return nil
}

var errNoPeer = errors.New("no peer is known")

// publishNewestHead brings the head of the newest commit to keepers again, with
// a later end: on a device that has made no commit yet, that of the device whose
// commit it has.
func (d *drive) publishNewestHead(ctx context.Context) error {
	c, err := d.commits()
	if err != nil || c.newest == nil {
		return err
	}
	return d.publishHead(ctx, c.head)
}

// publishHead is the writeback.Publisher of the drive. It fails with a setBackError if
// keepers have another head of this device that this one does not replace.
func (d *drive) publishHead(ctx context.Context, h commit.Head) error {
	if back := d.setBack.Load(); back != nil {
		return back
	}
	slots := keyring.HeadSlots(d.keys.Root, d.id, h.Device, d.epoch)
	words, err := keyring.SealHead(slots, h.Number, time.Now().Add(headTime).Unix(), h.Encode())
	if err != nil {
		return err
	}
	instead, err := d.net.records.Put(ctx, words)
	if len(instead) == 0 || h.Device != d.net.self { // another device may have gone on
		return err
	}
	known, cerr := d.commits()
	if cerr != nil {
		return errors.Join(err, cerr)
	}
	if back := devices.SetBackBy(slots, instead, known.ownLast(d.net.self)); back != nil {
		told := &setBackError{back}
		d.setBack.Store(told)
		return told
	}
	return err
}

// keepWanted renews the leases of the drive's groups, long before they end,
// until ctx ends.
func (d *drive) keepWanted(ctx context.Context) error {
	return renewing(ctx, d.net.anybody, d.engine.RenewLeases, d.log)
}

// renewing calls renew every so often while there is anybody who would take a
// lease, and sooner while it says that it renewed some: there may be more.
func renewing(ctx context.Context, anybody func() bool, renew func(context.Context) (int, error), log *slog.Logger) error {
	wait := leasesSoon // peers have to be found first
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		wait = leasesEvery
		if !anybody() {
			continue
		}
		n, err := renew(ctx)
		if err != nil && ctx.Err() == nil {
			log.Warn("leases were not renewed", "err", err)
		}
		if n > 0 {
			wait = leasesSoon
		}
	}
}
