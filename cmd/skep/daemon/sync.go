package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cache/writeback"
	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
)

// sync waits until everything that was done before is out.
func (d *Daemon) sync(ctx context.Context, in control.Sync) (out control.Synced, err error) {
	if d.drive == nil {
		return out, errNoDrive
	}
	if in.Timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.Timeout)
		defer cancel()
	}
	defer d.repair.Refresh()
	all := func() error { return d.syncPatiently(ctx, in.Timeout > 0) }
	if err = all(); err == nil {
		err = d.syncLost(ctx, all)
	}
	if err == nil {
		out.Frail, err = d.syncFrail(ctx, all)
	}
	if lost, ok := errors.AsType[*LostError](err); ok {
		out.Lost, err = lost.Error(), nil
	}
	if back := d.drive.setBack.Load(); back != nil {
		return out, back
	}
	switch {
	case err == nil:
		return out, d.comesBack(ctx)
	case writeback.Partly(err):
		return out, err
	case isFrail(err):
		return out, err
	case errors.Is(err, context.DeadlineExceeded):
		return out, fmt.Errorf("not everything is out yet: %s", d.missing())
	}
	return out, fmt.Errorf("not everything is out: %w", err)
}

func isFrail(err error) bool {
	_, ok := errors.AsType[*FrailError](err)
	return ok
}

// comesBack returns why the words would not bring back what is out; nil if they would,
// as far as that is known to whoever answers soon.
func (d *Daemon) comesBack(ctx context.Context) error {
	d.drive.lookBriefly(ctx)
	if back := d.drive.setBack.Load(); back != nil {
		return back
	}
	if !d.drive.recoveryOut.Load() {
		if err := d.drive.publishRecovery(ctx); err != nil {
			return fmt.Errorf("the content is out, but the recovery record is not: the words would not bring it back yet: %w", err)
		}
	}
	if d.drive.swarmGrew() {
		if err := d.drive.bringRecords(ctx, false); err != nil {
			d.log.Info("peers that have come do not keep the records of the drive yet", "err", err)
		}
	}
	return d.drive.overtaken()
}

// syncPatience is how long a sync without a timeout goes on trying when too few
// peers answer.
const syncPatience = 20 * time.Second

// syncPatiently tries again while too few peers answer: they may just be
// starting. A sync with a timeout of its own goes on until then.
func (d *Daemon) syncPatiently(ctx context.Context, bounded bool) error {
	begin := time.Now()
	for {
		err := d.drive.engine.Sync(ctx)
		if err == nil || writeback.Partly(err) || ctx.Err() != nil {
			return err
		}
		if !bounded && time.Since(begin) > syncPatience || d.drive.setBack.Load() != nil {
			return err
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return err
		}
	}
}

// missing says what is not out, in words.
func (d *Daemon) missing() string {
	files, bytes, _ := d.drive.engine.Pending()
	p := d.drive.engine.Progress()
	s := fmt.Sprintf("%s with %s %s on this device only", say.Count(files, "change"), say.Bytes(bytes), say.If(files, "is", "are"))
	if files == 0 {
		s = "the content is, but that the drive's newest state is known to its keepers is not confirmed yet"
	}
	if p.LastError != "" {
		s += "; the last attempt failed: " + p.LastError
	}
	return s
}
