package daemon

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"skep/chunker/commit"
	"skep/chunker/keyring"
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
// keepers, the first two at once after they changed, and all again every week,
// also while the drive rests, until ctx ends.
func (d *drive) keepFindable(ctx context.Context) error {
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		err := d.publishRecoveryOnce(ctx)
		if err == nil {
			err = d.publishNewestHead(ctx)
		}
		if err != nil {
			d.log.Info("the recovery record is not out yet", "err", err)
			wait = min(max(2*wait, time.Second), time.Minute)
			continue
		}
		wait = recordsEvery
	}
}

func (d *drive) publishRecoveryOnce(ctx context.Context) error {
	if !d.net.anybody() {
		return errNoPeer
	}
	if err := d.net.records.Put(ctx, d.recover.Recovery); err != nil {
		return err
	}
	sealed, err := keyring.SealKeyring(d.keys.Root, d.ring, time.Now().Add(headTime).Unix())
	if err != nil {
		return err
	}
	if err := d.net.records.Put(ctx, sealed); err != nil {
		return err
	}
	if d.recoveryOut.Swap(true) {
		return nil
	}
	kept := d.recover // which others read at the same time
	kept.Out = true
	return kept.save(d.home)
}

var errNoPeer = errors.New("no peer is known")

// publishNewestHead brings the head of the newest commit to keepers again, with
// a later end: on a device that has made no commit yet, that of the device whose
// commit it has.
func (d *drive) publishNewestHead(ctx context.Context) error {
	h, ok, err := d.newest()
	if err != nil || !ok {
		return err
	}
	return d.publishHead(ctx, h)
}

// publishHead is the writeback.Publisher of the drive.
func (d *drive) publishHead(ctx context.Context, h commit.Head) error {
	slots := keyring.HeadSlots(d.keys.Root, d.id, h.Device, d.epoch)
	words, err := keyring.SealHead(slots, h.Number, time.Now().Add(headTime).Unix(), h.Encode())
	if err != nil {
		return err
	}
	return d.net.records.Put(ctx, words)
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
