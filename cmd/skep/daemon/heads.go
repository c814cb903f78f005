package daemon

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/net/swarm"
)

// headTries is how often heads are looked for while too few copies are found, with
// another look around in between for peers that did not answer at once.
const (
	headTries = 3
	headPause = 2 * time.Second
)

// findHead takes the newest head of all devices that the keyring knows.
func (n *network) findHead(ctx context.Context, f *foundDrive) error {
	for try := 1; ; try++ {
		err := n.findHeadOnce(ctx, f)
		if err != nil || !f.few || try == headTries || ctx.Err() != nil {
			return err
		}
		n.lookAgain(ctx)
	}
}

// lookAgain looks around for peers that did not answer at once.
func (n *network) lookAgain(ctx context.Context) {
	select {
	case <-time.After(headPause):
	case <-ctx.Done():
	}
	if n.survey != nil {
		n.survey.Round(ctx)
	}
}

func (n *network) findHeadOnce(ctx context.Context, f *foundDrive) error {
	f.empty, f.few, f.unheard = true, true, false
	var last error
	for _, found := range n.readHeads(ctx, f) {
		f.unheard = f.unheard || errors.Is(found.err, errUnheard) || found.err == nil && !found.found.Heard
		switch h := found.head; {
		case found.err != nil:
			if !errors.Is(found.err, keyring.ErrAbsent) && !errors.Is(found.err, errUnheard) {
				last = found.err
			}
		case f.empty || replaces(h, f.head):
			f.head, f.empty, f.few = h, false, found.few(h.Number)
		}
	}
	if f.empty {
		return last
	}
	f.few = f.few || f.unheard || last != nil // a newer one may be that of another device
	return nil
}

// replaces reports whether whoever finds two heads takes the first one.
func replaces(h, other commit.Head) bool {
	return h.Number > other.Number || h.Number == other.Number && h.Time > other.Time
}

// headsAtOnce is how many heads are looked for at the same time: one that is not
// there is waited for.
const headsAtOnce = 16

// foundHead is what was found of the head of a device.
type foundHead struct {
	device keyring.Device
	head   commit.Head
	until  int64 // when its record ends
	found  swarm.Found
	err    error // keyring.ErrAbsent if keepers answered, and have none
}

// errUnheard says that too few keepers answered to tell that there is no record.
var errUnheard = errors.New("too few keepers answered")

// readHeads reads the heads of all devices.
func (n *network) readHeads(ctx context.Context, f *foundDrive) []foundHead {
	devices := f.ring.Known(f.root)
	found := make([]foundHead, len(devices))
	var g errgroup.Group
	g.SetLimit(headsAtOnce)
	for i, dev := range devices {
		g.Go(func() error {
			found[i] = n.readHead(ctx, f.headSlots(dev.Key), f.drive.ID, dev)
			return nil
		})
	}
	_ = g.Wait()
	return found
}

// headSlots are the slots of a device's head, for all epochs in which it may have been
// sealed.
func (f *foundDrive) headSlots(device group.PeerKey) (slots []keyring.Slot) {
	for _, e := range f.drive.Epochs {
		slots = append(slots, keyring.HeadSlots(f.root, f.drive.ID, device, e)...)
	}
	return slots
}

func (n *network) readHead(ctx context.Context, slots []keyring.Slot, drive keyring.DriveID, device keyring.Device) foundHead {
	at := foundHead{device: device}
	found := n.records.Get(ctx, slotKeys(slots[:keyring.Slots])) // the same in every epoch
	opened, err := keyring.OpenHead(slots, found.Words(), 0)
	if errors.Is(err, keyring.ErrAbsent) && !found.Heard {
		err = errUnheard
	}
	if at.err = err; err != nil {
		return at
	}
	at.head, err = commit.ParseHead(opened.Value)
	if err != nil || at.head.Drive != drive || at.head.Device != device.Key {
		at.err = errors.Join(err, errors.New("the head is of another drive"))
		return at
	}
	at.until, at.found = opened.Until, found
	return at
}

// few reports whether few copies of a head with this number, or with a higher one, were
// found, or few keepers answered: there may be a newer one than was found. What is
// written has most slots, and several peers where there are several: a group with
// several slots was founded among as many.
func (f foundHead) few(number uint64) bool {
	slots, peers := f.found.Spread(number)
	return !f.found.Heard || 2*slots <= keyring.Slots || peers < min(2, int(f.head.Commit.Coding.N))
}
