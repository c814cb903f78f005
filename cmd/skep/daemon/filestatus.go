package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf8"

	"skep/cache/readerr"
	"skep/cache/readthrough"
	"skep/cache/tree"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/cmd/skep/control"
	"skep/repair/health"
	"skep/repair/plan"
)

// filePatience bounds the time that is taken to look the packs up of a large file, or
// of all that is in a folder: nodes of their trees may have to be fetched.
const filePatience = 10 * time.Second

// pathStatus tells how safe one file is, or a folder with all that is in it.
func (d *Daemon) pathStatus(ctx context.Context, path string) control.PathStatus {
	out := control.PathStatus{Path: path}
	if !utf8.ValidString(path) {
		out.Bytes = []byte(path)
	}
	if err := d.lookAt(ctx, path, &out); err != nil {
		out.Error = plain(err).Error()
	}
	return out
}

var (
	errAwayNow = errors.New("what leads to it cannot be read now: too few holders answer")
	errLostNow = errors.New("what leads to it is lost: too few holders have it")
)

// plain says in few words that what has to be read cannot be.
func plain(err error) error {
	switch {
	case errors.Is(err, readerr.ErrUnreachable):
		return errAwayNow
	case errors.Is(err, readerr.ErrLost):
		return errLostNow
	}
	return err
}

func (d *Daemon) lookAt(ctx context.Context, path string, out *control.PathStatus) error {
	if d.drive == nil {
		return errNoDrive
	}
	rel, err := d.relative(ctx, path, false)
	if err != nil {
		return err
	}
	a, err := d.drive.tree.Find(ctx, rel)
	if err != nil {
		return err
	}
	out.Size, out.Folder = a.Size, a.Mode&dag.ModeType == dag.ModeDirectory
	pending, err := d.isPending(ctx, a, out)
	if err != nil {
		return err
	}
	packs, well := d.drive.reader.Packs(), d.allWell()
	out.State = "local"
	if !pending {
		ctx, cancel := context.WithTimeout(ctx, filePatience)
		defer cancel()
		committed, err := packs.Path(ctx, rel, !well) // if all is well, so is all that is in a folder, and nothing has to be looked up
		switch {
		case ctx.Err() != nil:
			return fmt.Errorf("not all that is in it could be looked at in %v; ask for parts of it", filePatience)
		case err != nil:
			return fmt.Errorf("where it lies: %w", err)
		case committed:
			out.State = "safe"
		}
	}
	d.judgePacks(packs.All(), out)
	out.All = packs.Every()
	switch {
	case out.State == "safe" && out.PacksLost > 0:
		out.State = "lost"
	case out.State == "safe" && out.PacksAway > 0:
		out.State = "away"
	case out.State == "safe" && out.PacksOnlyHere > 0:
		out.State = "local"
	case out.State == "safe" && (out.PacksBelowTarget+out.PacksUnasked+out.PacksWeak+out.PacksFrail > 0 || !d.drive.wordsBringIt()):
		out.State = "out"
	}
	return nil
}

// wordsBringIt reports whether the words would bring back what is out, as far as is
// known; comesBack looks, and says why not.
func (d *drive) wordsBringIt() bool {
	return d.setBack.Load() == nil && d.recoveryOut.Load() && d.overtaken() == nil
}

// isPending reports whether the newest commit lacks a file, or something that is in a
// folder, as it is now.
func (d *Daemon) isPending(ctx context.Context, a tree.Attr, out *control.PathStatus) (bool, error) {
	t := d.drive.tree
	pending, err := t.IsPending(a.Ino)
	if err == nil && out.Folder && !pending {
		return t.IsPendingBelow(a.Ino)
	}
	if err != nil || a.Mode&dag.ModeType != dag.ModeRegular {
		return pending, err
	}
	c, err := t.ContentState(ctx, a.Ino)
	out.Resident = c.Resident
	return pending || c.Dirty, err
}

// allWell reports whether nothing is the matter with any pack of the drive.
func (d *Daemon) allWell() bool {
	r := d.repair.Report()
	f, err := d.drive.frailty()
	return err == nil && f.Weak+f.Frail+r.Injured+r.Lost+r.AtRisk+r.Unasked == 0
}

// judgePacks says how packs are.
func (d *Daemon) judgePacks(packs map[readthrough.PackName]bool, out *control.PathStatus) {
	groups := map[group.ID]bool{}
	var proven []time.Time
	var f plan.Frailty
	for name := range packs {
		out.Packs++
		h, ok := d.repair.PackHealth(name.Group, name.Number)
		g, found, err := d.drive.table.Group(name.Group)
		pack, known, perr := d.drive.table.Pack(name.Group, name.Number)
		if err = errors.Join(err, perr); found && err == nil {
			if weak, frail := f.Add(g, d.drive.live(g, pack), d.drive.sink.judge); weak || frail {
				groups[name.Group] = true
			}
		}
		if !ok || !found || err != nil { // repair has not heard of it yet
			if err != nil || !found || !known || pack.Acked.Count() != int(g.Coding.N) { // nor has each holder taken it
				out.PacksUnasked++
			}
			continue
		}
		out.ShardsMissing += int(g.Coding.N) - h.Live
		count(out, h)
		if h.Health != health.Healthy || h.AtRisk {
			groups[name.Group] = true
		}
		proven = append(proven, h.Proven)
	}
	out.PacksWeak, out.PacksFrail = f.Weak, f.Frail
	if len(proven) == out.Packs && len(proven) > 0 {
		out.Proven = slices.MinFunc(proven, time.Time.Compare)
	}
	for id := range groups {
		out.Groups = append(out.Groups, id.String()[:12])
	}
}

func count(out *control.PathStatus, h health.PackHealth) {
	switch h.Health {
	case health.Lost:
		out.PacksLost++
		out.PacksBelowTarget++
	case health.Injured:
		out.PacksBelowTarget++
	}
	if h.OnlyHere {
		out.PacksOnlyHere++
	}
	if h.Away {
		out.PacksAway++
	}
	if h.AtRisk {
		out.PacksAtRisk++
	}
	if h.Unasked > 0 {
		out.PacksUnasked++
	}
}
