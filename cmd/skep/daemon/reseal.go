package daemon

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"time"

	"skep/cache/reseal"
	"skep/chunker/block"
	"skep/chunker/blockindex"
	"skep/chunker/group"
	"skep/cmd/skep/say"
	"skep/repair/health"
)

// watchLost has go out again what holders have lost and is here, until ctx ends.
func (d *Daemon) watchLost(ctx context.Context) error {
	tick := time.NewTicker(lostPause(time.Duration(d.settings.DeadAfter)))
	defer tick.Stop()
	var last lookout
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		r := d.repair.Report()
		now, err := d.gone(r)
		if err == nil && !last.pause(now, r.Paused) {
			continue
		}
		if err == nil {
			_, err = d.lookForLost(ctx)
		}
		if err == nil {
			err = d.lookForStranded(ctx, now.stranded)
		}
		if err == nil {
			last = lookout{seen: now}
		} else if ctx.Err() == nil {
			d.log.Warn("not all was looked through for what holders have lost", "err", err)
		}
	}
}

// gone are the packs of which what is here goes out again.
type gone struct {
	lost     reseal.Lost
	stranded reseal.Lost // frail, and out of reach though not lost
}

func (g gone) isNothing() bool { return len(g.lost)+len(g.stranded) == 0 }

// gone returns them, as of a report of repair.
func (d *Daemon) gone(r health.Report) (g gone, err error) {
	g.lost = d.repair.Lost()
	if r.Away > 0 {
		f, ferr := d.drive.frailty()
		g.stranded, err = f.stranded, ferr
	}
	return g, err
}

// lookout is the last time that all was looked through.
type lookout struct {
	seen   gone // then
	pauses int  // since then
}

// pause counts a pause, and returns whether all is to be looked through again after it:
// when other packs are gone, or the same ones for long. While repair is paused it is not,
// and what was gone before that is nothing new afterwards.
func (l *lookout) pause(now gone, paused bool) (again bool) {
	l.pauses++
	long := !now.isNothing() && l.pauses >= lookAgain
	return !paused && (long || !reflect.DeepEqual(now, l.seen))
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
	lost := d.repair.Lost()
	if err := d.drive.leave(lost); err != nil {
		return reseal.Found{}, err
	}
	found, err := d.drive.reseal(ctx, lost)
	if err != nil {
		return found, err
	}
	if found.Again > 0 {
		d.log.Info("content that holders have lost goes out again", "files", found.Again)
	}
	d.lost.Store(&found)
	return found, nil
}

// leave has blocks of lost packs be read from others that have them, and a commit say so.
func (d *drive) leave(lost reseal.Lost) error {
	isLost := func(p blockindex.Place) bool { packs := lost[p.Group]; return packs.Has(p.Number) }
	for id, packs := range lost {
		for n := range uint16(group.MaxPacks) {
			if !packs.Has(n) {
				continue
			}
			some, err := d.table.Leave(id, n, isLost)
			if err != nil {
				return err
			}
			if some {
				d.engine.Changed()
			}
		}
	}
	return nil
}

// lookForStranded has go out again, with the next commit, what is in packs that are out
// of reach, and here. All else of them comes back with their holders.
func (d *Daemon) lookForStranded(ctx context.Context, stranded reseal.Lost) error {
	if len(stranded) == 0 {
		return nil
	}
	d.looking.Lock()
	defer d.looking.Unlock()
	found, err := d.drive.reseal(ctx, stranded)
	if found.Again > 0 {
		d.log.Info("content goes out again that one holder alone has, who is away", "files", found.Again)
	}
	return err
}

// reseal has go out again, with the next commit, what is in some packs and here.
func (d *drive) reseal(ctx context.Context, packs reseal.Lost) (reseal.Found, error) {
	return reseal.Drive{Tree: d.tree, Table: d.table, Blocks: d.reader,
		Sealer: block.NewSealer(d.epoch.Convergence), Anew: d.engine.Anew}.Look(ctx, packs)
}

// LostError says that all was published, but that holders have lost some of what was
// published before, and that it is not on this device either.
type LostError struct{ reseal.Found }

func (l *LostError) Error() string {
	var what []string
	if len(l.Gone) > 0 {
		what = append(what, "parts of "+say.Paths(l.Gone))
	}
	if l.Elsewhere > 0 {
		what = append(what, say.Count(l.Elsewhere, "block")+" whose files are not known here (of folders that nobody opened on this device: ls -R says more; or of an older state)")
	}
	return "all changes are out, but holders have lost " + strings.Join(what, ", and ") +
		", which this device does not have either: it comes back with those holders, or when you copy the files here again"
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
	return allAgain(func() (reseal.Found, error) { return d.lookForLost(ctx) }, sync)
}

// errComesUp is what ends a sync that has found more with each look.
var errComesUp = errors.New("content that holders have lost goes out again, but more of it comes up as files change")

// allAgain syncs as long as a look finds what has to go out again.
func allAgain(look func() (reseal.Found, error), sync func() error) error {
	for range mostRounds {
		found, err := look()
		if err != nil {
			return err
		}
		if found.Again == 0 {
			return lostError(found)
		}
		if err := sync(); err != nil {
			return err
		}
	}
	return errComesUp
}
