package daemon

import (
	"context"
	"math/rand/v2"
	"time"

	"skep/chunker/secret"
	"skep/cmd/skep/home"
	"skep/repair/health"
	"skep/repair/run"
)

// healthFile keeps what is known of holders between runs.
const healthFile = "health"

// newRepair returns the loop that keeps the drive's packs whole.
func newRepair(d *Daemon) *run.Loop {
	saved, err := d.home.ReadFile(healthFile)
	if err != nil {
		d.log.Warn("what was known of holders is begun anew", "err", err)
	}
	made, cerr := d.drive.commits() // a new drive has none, and nothing could be known of its holders
	loop := run.New(run.Config{
		Health:     health.Config{Self: d.net.self, Seed: secret.New(), DeadAfter: time.Duration(d.settings.DeadAfter)},
		Account:    account{d.drive},
		Holders:    d.net.client,
		Shards:     d.net.swarm,
		Peers:      d.net.peers,
		Candidates: d.net.candidates,
		Now:        time.Now,
		Rand:       rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
		Log:        d.log,
		Saved:      saved,
		Forgotten:  saved == nil && (cerr != nil || made.newest != nil),
	})
	loop.Pause(d.settings.RepairPaused)
	return loop
}

// pauseRepair has nothing rebuilt, or goes on with it, in later runs too.
func (d *Daemon) pauseRepair(pause bool) error {
	err := d.changeSettings(func(s *home.Settings) { s.RepairPaused = pause })
	d.repair.Pause(pause)
	return err
}

// saveHealth keeps what is known of holders, now and then and at the end.
func (d *Daemon) saveHealth(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return d.home.WriteFile(healthFile, d.repair.Save())
		case <-tick.C:
		}
		if err := d.home.WriteFile(healthFile, d.repair.Save()); err != nil {
			d.log.Warn("what is known of holders was not saved", "err", err)
		}
	}
}
