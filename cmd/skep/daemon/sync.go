package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cache/writeback"
	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
	"skep/net/swarm"
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
	out, err = withFrail(err, func() (string, error) { return d.syncFrail(ctx, all) })
	if back := d.drive.setBack.Load(); back != nil {
		return out, back
	}
	switch {
	case err == nil:
		out.Away = d.repair.Report().Away
		out.InMotion = d.drive.engine.Progress().InMotion
		return out, d.comesBack(ctx)
	case writeback.Partly(err):
		return out, err
	case isFrail(err):
		return out, err
	case errors.Is(err, context.Canceled): // by who asked, who hears nothing of it, or
		return out, fmt.Errorf("not everything is out: the daemon ends; %s", d.missing())
	case d.drive.engine.Progress().NoRoom && d.swarmFull() != "":
		return out, fmt.Errorf("not everything is out: %s", d.swarmFull())
	case errors.Is(err, context.DeadlineExceeded):
		return out, fmt.Errorf("not everything is out yet: %s", d.missing())
	}
	if errors.Is(err, writeback.ErrTooFew) {
		if why := d.net.whyTooFew(); why != "" {
			return out, fmt.Errorf("not everything is out: %s: %s; the daemon goes on trying (skep sync --timeout D waits for longer)", d.pendingWords(), why)
		}
	}
	return out, fmt.Errorf("not everything is out: %w", err)
}

// withFrail goes on, with frail, after a sync that ended so, if all is out but for what
// holders have lost, and says what is left of both.
func withFrail(err error, frail func() (string, error)) (out control.Synced, _ error) {
	lost, isLost := errors.AsType[*LostError](err)
	if err != nil && !isLost {
		return out, err
	}
	said, err := frail()
	switch {
	case !isLost:
		out.Frail = said
	case err == nil:
		out.Lost = lost.Error()
	case isFrail(err):
		out.Lost, err = lost.Error()+"; and "+err.Error(), nil
	}
	return out, err
}

// swarmFull says how much waits for room with peers, and what makes room, after the last
// commit found too little of it; nothing if nobody answers, who could have any.
func (d *Daemon) swarmFull() string {
	_, answer := d.net.answering()
	p := d.pending()
	if answer == 0 || p.Files == 0 {
		return ""
	}
	return fmt.Sprintf("the swarm is full: %s with %s %s on this device, as the %s that %s have too little room left; to make room, delete something, have peers offer more, or add peers; it is tried again by itself",
		say.Count(p.Files, "change"), say.Bytes(p.Bytes), say.If(p.Files, "waits", "wait"), say.Count(answer, "peer"), say.If(answer, "answers", "answer"))
}

// answering is how many peers that offer something have ever answered, and do now.
func (n *network) answering() (known, answer int) {
	for _, p := range n.peers.List() {
		if p.Key != n.self && !p.HelloAt.IsZero() {
			known++
			answer += one(n.usable(p) && p.Misses == 0)
		}
	}
	return known, answer
}

// whyTooFew says why too few peers take what is to go out, where that is plain: nobody
// answers; else nothing.
func (n *network) whyTooFew() string {
	known, answer := n.answering()
	switch {
	case known == 0:
		return "no peer has ever answered; give the address of one with: skep mount --bootstrap ADDRESS DIR"
	case answer == 0:
		return fmt.Sprintf("none of the %s answers", say.Count(known, "known peer"))
	}
	return ""
}

func isFrail(err error) bool {
	_, ok := errors.AsType[*FrailError](err)
	return ok
}

// comesBack returns why the words would not bring back what is out; nil if they would,
// as far as that is known to whoever answers soon.
func (d *Daemon) comesBack(ctx context.Context) error {
	ctx = swarm.Linger(ctx, silentFor)
	unkept := d.drive.lookBriefly(ctx)
	if back := d.drive.setBack.Load(); back != nil {
		return back
	}
	if unkept != nil {
		return fmt.Errorf("the content is out, but too few peers keep the drive's newest state, and they do not take it now: the words may not bring it back yet: %w", unkept)
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

// pendingWords says how much is on this device only.
func (d *Daemon) pendingWords() string {
	p := d.pending()
	return fmt.Sprintf("%s with %s %s on this device only", say.Count(p.Files, "change"), say.Bytes(p.Bytes), say.If(p.Files, "is", "are"))
}

// missing says what is not out, in words.
func (d *Daemon) missing() string {
	p := d.drive.engine.Progress()
	s := d.pendingWords()
	if d.pending().Files == 0 {
		s = "the content is, but that the drive's newest state is known to its keepers is not confirmed yet"
	}
	if p.LastError != "" {
		s += "; the last attempt failed: " + p.LastError
	}
	return s
}
