package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"skep/cache/blocks"
	"skep/cache/reseal"
	"skep/chunker/group"
	"skep/cmd/skep/say"
	"skep/repair/health"
	"skep/repair/plan"
)

// frailty is how safe the packs are that something needs, or may need.
type frailty struct {
	plan.Frailty
	both     int         // are weak and frail, and neither lost nor only here
	stranded reseal.Lost // of both, those that cannot be read now
	onlyHere int         // have too few shards left at holders, and are here
}

// add counts a pack of a group.
func (f *frailty) add(d *drive, g group.Group, p blocks.Pack) {
	weak, frail := f.Add(g, d.live(g, p), d.sink.judge)
	h, _ := d.packHealth(p.Group, p.Number)
	switch {
	case h.OnlyHere:
		f.onlyHere++
	case weak && frail && h.Health != health.Lost:
		f.addBoth(p, h)
	}
}

// addBoth counts a pack that is weak and frail.
func (f *frailty) addBoth(p blocks.Pack, h health.PackHealth) {
	f.both++
	if h.Away {
		if f.stranded == nil {
			f.stranded = reseal.Lost{}
		}
		packs := f.stranded[p.Group]
		packs.Add(p.Number)
		f.stranded[p.Group] = packs
	}
}

// live is how many shards of a pack are believed to be there: as many as there may be,
// of one of which nobody has said anything yet.
func (d *drive) live(g group.Group, p blocks.Pack) int {
	if h, ok := d.packHealth(p.Group, p.Number); ok {
		return h.Live
	}
	if n := p.Acked.Count(); n > 0 {
		return n
	}
	return int(g.Coding.N)
}

// said is how many holders of a pack have said that they have their shard, and answer now;
// of one that repair has not heard of yet, how many took it.
func (d *drive) said(p blocks.Pack) int {
	if h, ok := d.packHealth(p.Group, p.Number); ok {
		return h.Reachable
	}
	return p.Acked.Count()
}

// isBeyondReach reports whether too few shards of a pack are left; or, if it survives the
// loss of no holder and could be stored more safely, whether it cannot be read now. Then
// what is here of it is stored again without waiting for its holders.
func (d *drive) isBeyondReach(id group.ID, number uint16) bool {
	h, ok := d.packHealth(id, number)
	if !ok || h.Health == health.Lost || !h.Away {
		return ok && h.Health == health.Lost
	}
	g, ok, err := d.table.Group(id)
	if !ok || err != nil {
		return false
	}
	weak, frail := new(plan.Frailty).Add(g, h.Live, d.sink.judge)
	return weak && frail
}

func one(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// frailty looks at all packs of a drive.
func (d *drive) frailty() (f frailty, err error) {
	groups, err := d.table.Groups()
	if err != nil {
		return f, err
	}
	by := make(map[group.ID]group.Group, len(groups))
	for _, g := range groups {
		by[g.ID] = g
	}
	counted, err := d.table.Counted()
	if err != nil {
		return f, err
	}
	err = d.table.Packs(func(p blocks.Pack) bool {
		if g, known := by[p.Group]; known && (p.Live > 0 || !counted) {
			f.add(d, g, p)
		}
		return true
	})
	return f, err
}

// say says what a sync that is done leaves less safe than it may seem; nothing if it
// leaves nothing so.
func (f frailty) say() string {
	switch {
	case f.Frail > f.both:
		return fmt.Sprintf("All is out, but %s %s the loss of no holder: with more peers it would be safer.", say.Count(f.Frail, "pack"), say.If(f.Frail, "survives", "survive"))
	case f.Weak > 0:
		return fmt.Sprintf("All is out. %s, out before there were so many peers, %s to be stored again more safely.", say.Count(f.Weak, "pack"), say.If(f.Weak, "is", "are"))
	}
	return ""
}

// FrailError says that all is out, but that some of it is not as safe as it should be: in
// packs of which holders have too little left, or that survive the loss of no holder,
// though peers are there with which they would.
type FrailError struct {
	OnlyHere int   // of the first kind
	Packs    int   // of the second
	Err      error // why they are not stored again; nil: it was tried in vain
}

func (f *FrailError) Error() string {
	s := fmt.Sprintf("all changes are out, but %s that %s needed %s the loss of no holder, and could not be stored with more of them yet; the daemon goes on trying",
		say.Count(f.Packs, "pack"), say.If(f.Packs, "is", "are"), say.If(f.Packs, "survives", "survive"))
	if f.OnlyHere > 0 {
		s = fmt.Sprintf("all changes went out, but too few holders are left of %s with names and the shape of the drive: %s on this device only, the words would not bring %s back, and %s could not be stored with others yet; the daemon goes on trying",
			say.Count(f.OnlyHere, "pack"), say.If(f.OnlyHere, "it is", "they are"), say.If(f.OnlyHere, "it", "them"), say.If(f.OnlyHere, "it", "they"))
	}
	if f.Err != nil && !errors.Is(f.Err, context.DeadlineExceeded) { // whoever gave it so long knows
		s += ": " + f.Err.Error()
	}
	return s
}

func (f *FrailError) Unwrap() error { return f.Err }

// mostVain is how often in a row a sync tries to have packs stored again with more
// holders though nothing comes of it.
const mostVain = 5

// vainPause is how long it waits after the second time, and twice as long after each
// more: a peer that has just gone is found out meanwhile, and not counted on any more.
const vainPause = time.Second / 2

// pauseVain waits before one more try, and reports whether there is to be one.
func pauseVain(ctx context.Context, vain int) bool {
	if vain < 2 {
		return true
	}
	select {
	case <-time.After(vainPause << (vain - 2)):
		return true
	case <-ctx.Done():
		return false
	}
}

// syncFrail waits until nothing that is needed lies in packs that are only here, or survive
// the loss of no holder, as far as there are peers with which it would not: it is stored
// again, from those packs, or, if they cannot be read now, from what is here; or repair has
// brought some. What could be safer otherwise is stored again later. It returns what there
// is to say of what is left.
func (d *Daemon) syncFrail(ctx context.Context, sync func() error) (string, error) {
	least := -1
	for vain := 0; ; {
		d.repair.Report() // who is silent now
		d.drive.sink.renewed()
		f, err := d.drive.frailty()
		if err != nil {
			return "", err
		}
		counted, err := d.drive.table.Counted()
		if err != nil || f.onlyHere == 0 && (f.both == 0 || !counted) { // else it is not known yet what is needed
			return f.say(), err
		}
		left := f.onlyHere + f.both
		if vain++; least < 0 || left < least {
			least, vain = left, 0
		}
		if vain == mostVain || !pauseVain(ctx, vain) {
			return "", &FrailError{OnlyHere: f.onlyHere, Packs: f.both}
		}
		if err = d.lookForStranded(ctx, f.stranded); err == nil {
			err = sync()
		}
		if err != nil {
			return "", &FrailError{f.onlyHere, f.both, err}
		}
	}
}
