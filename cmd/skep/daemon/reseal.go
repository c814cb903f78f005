package daemon

import (
	"context"
	"reflect"
	"strings"
	"time"

	"skep/cache/reseal"
	"skep/chunker/block"
	"skep/chunker/link"
	"skep/cmd/skep/say"
	"skep/repair/health"
)

// watchLost has go out again what holders have lost and is here, until ctx ends.
func (d *Daemon) watchLost(ctx context.Context) error {
	tick := time.NewTicker(lostPause(time.Duration(d.settings.DeadAfter)))
	defer tick.Stop()
	var seen reseal.Lost
	for since := 0; ; since++ {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if d.repair.Report().Paused {
			continue
		}
		lost := reseal.Lost(d.repair.Lost())
		if reflect.DeepEqual(lost, seen) && (len(lost) == 0 || since < lookAgain) {
			continue
		}
		if _, err := d.lookForLost(ctx); err == nil {
			seen, since = lost, 0
		} else if ctx.Err() == nil {
			d.log.Warn("not all was looked through for what holders have lost", "err", err)
		}
	}
}

// lookAgain is after how many pauses all is looked through again, as long as packs
// are lost: something may have come here.
const lookAgain = 60

// lostPause is how often it is asked whether packs are lost.
func lostPause(deadAfter time.Duration) time.Duration {
	return min(time.Minute, max(100*time.Millisecond, health.Config{DeadAfter: deadAfter}.Tick()))
}

// lookForLost has go out again, with the next commit, what is in lost packs and
// here, and keeps for status what else is in them.
func (d *Daemon) lookForLost(ctx context.Context) (reseal.Found, error) {
	d.looking.Lock()
	defer d.looking.Unlock()
	dr := d.drive
	found, err := reseal.Drive{Tree: dr.tree, Table: dr.table, Blocks: dr.reader, Same: dr.isContent, Anew: dr.engine.Anew}.Look(ctx, d.repair.Lost())
	if err != nil {
		return found, err
	}
	if found.Again > 0 {
		d.log.Info("content that holders have lost goes out again", "files", found.Again)
	}
	d.lost.Store(&found)
	return found, nil
}

// isContent reports whether plain is the content of a block; if the link is zero, of
// any that the drive has.
func (d *drive) isContent(_ context.Context, l link.Link, plain []byte) (bool, error) {
	sealer := block.NewSealer(d.epoch.Convergence)
	if l.IsZero() {
		_, known, err := d.table.Find(sealer.Tag(link.Raw, plain))
		return known, err
	}
	s, err := sealer.Seal(link.Raw, plain, nil)
	return s.Link == l, err
}

// LostError says that all was published, but that holders have lost some of what was
// published before, and that it is not on this device either.
type LostError struct{ reseal.Found }

func (l *LostError) Error() string {
	var what []string
	if len(l.Gone) > 0 {
		what = append(what, say.Paths(l.Gone))
	}
	if l.Elsewhere > 0 {
		what = append(what, say.Count(l.Elsewhere, "block")+" of folders that were not opened on this device, or of no file")
	}
	return "all changes are out, but holders have lost parts of " + strings.Join(what, ", and ") +
		" that are not on this device either: they come back with those holders, or when you copy the files here again"
}

// lostError is what a sync ends with that found so much.
func lostError(f reseal.Found) error {
	if len(f.Gone) == 0 && f.Elsewhere == 0 {
		return nil
	}
	return &LostError{f}
}

// mostRounds bounds how often a sync looks again, as files change while it does.
const mostRounds = 4

// syncLost waits until what holders have lost and is here is out again, and says
// what is not here.
func (d *Daemon) syncLost(ctx context.Context, sync func() error) error {
	if len(d.repair.Lost()) == 0 {
		d.lost.Store(&reseal.Found{})
		return nil
	}
	for rounds := 1; ; rounds++ {
		found, err := d.lookForLost(ctx)
		if err != nil {
			return err
		}
		if found.Again == 0 || rounds == mostRounds {
			return lostError(found)
		}
		if err := sync(); err != nil {
			return err
		}
	}
}
