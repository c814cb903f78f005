package daemon

import (
	"context"
	"errors"
	"fmt"

	"skep/cache/blocks"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/cmd/skep/say"
	"skep/repair/plan"
)

// frailty is how well the packs are coded that something needs, or may need.
type frailty struct {
	weak  int     // are clearly less safe than they would be with the peers that are there now
	frail int     // survive the loss of no holder
	both  int     // are both, and not lost
	loss  float64 // chance that at one instant the worst of them cannot be read

	weakness map[coded]bool // as far as it was asked for
}

// coded is what decides how weak a pack is.
type coded struct {
	class  erasure.Class
	coding erasure.Coding
}

// add counts a pack of a group.
func (f *frailty) add(s *sink, g group.Group) (weak, frail bool) {
	weak, frail = f.isWeak(s, coded{g.Class, g.Coding}), plan.Survives(g.Coding) == 0
	f.weak += one(weak)
	f.frail += one(frail)
	return weak, frail
}

// isWeak looks once at each coding, as there are many packs and few codings.
func (f *frailty) isWeak(s *sink, c coded) bool {
	weak, known := f.weakness[c]
	if known {
		return weak
	}
	if f.weakness == nil {
		f.weakness = map[coded]bool{}
	}
	weak = s.weak(c.class, c.coding)
	f.weakness[c] = weak
	f.loss = max(f.loss, plan.LossOf(c.coding, s.current().Availability))
	return weak
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
			weak, frail := f.add(d.sink, g)
			f.both += one(weak && frail && !d.isLost(p.Group, p.Number))
		}
		return true
	})
	return f, err
}

// say says what a sync that is done leaves less safe than it may seem; nothing if it
// leaves nothing so.
func (f frailty) say() string {
	switch {
	case f.frail > f.both:
		return fmt.Sprintf("All is out, but %s %s the loss of no holder: with more peers it would be safer.", say.Count(f.frail, "pack"), say.If(f.frail, "survives", "survive"))
	case f.weak > 0:
		return fmt.Sprintf("All is out. %s, out before there were so many peers, %s to be stored again more safely.", say.Count(f.weak, "pack"), say.If(f.weak, "is", "are"))
	}
	return ""
}

// FrailError says that all is out, but some of it in packs that survive the loss of no
// holder, though peers are there with which they would.
type FrailError struct {
	Packs int
	Err   error // why they are not stored again; nil: it was tried in vain
}

func (f *FrailError) Error() string {
	s := fmt.Sprintf("all changes are out, but %s that %s needed %s the loss of no holder, and could not be stored with more of them yet; the daemon goes on trying",
		say.Count(f.Packs, "pack"), say.If(f.Packs, "is", "are"), say.If(f.Packs, "survives", "survive"))
	if f.Err != nil && !errors.Is(f.Err, context.DeadlineExceeded) { // whoever gave it so long knows
		s += ": " + f.Err.Error()
	}
	return s
}

func (f *FrailError) Unwrap() error { return f.Err }

// mostVain is how often in a row a sync tries to have packs stored again with more
// holders though nothing comes of it.
const mostVain = 2

// syncFrail waits until nothing that is needed lies in packs that survive the loss of
// no holder, as far as there are peers with which it would not. What could be safer
// otherwise is stored again later. It returns what there is to say of what is left.
func (d *Daemon) syncFrail(ctx context.Context, sync func() error) (string, error) {
	least := -1
	for vain := 0; ; {
		f, err := d.drive.frailty()
		if err != nil {
			return "", err
		}
		counted, err := d.drive.table.Counted()
		if err != nil || f.both == 0 || !counted { // else it is not known yet what is needed
			return f.say(), err
		}
		if vain++; least < 0 || f.both < least {
			least, vain = f.both, 0
		}
		if vain == mostVain {
			return "", &FrailError{Packs: f.both}
		}
		if err := sync(); err != nil {
			return "", &FrailError{f.both, err}
		}
	}
}
