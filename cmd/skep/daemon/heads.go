package daemon

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/chunker/commit"
	"skep/chunker/devices"
	"skep/chunker/group"
	"skep/chunker/keyring"
)

// headTries is how often heads are looked for while too few copies are found, with
// another look around in between for peers that did not answer at once.
const (
	headTries = 3
	headPause = 2 * time.Second
)

// findHead takes the newest head of all devices that the keyring knows.
func (n *network) findHead(ctx context.Context, f *foundDrive) (err error) {
	for try := 1; ; try++ {
		if err = n.findHeadOnce(ctx, f); err != nil || !f.few || try == headTries || ctx.Err() != nil {
			break
		}
		n.lookAgain(ctx)
	}
	f.few = f.few || f.fewRings
	return err
}

// lookAgain looks around for peers that did not answer at once.
func (n *network) lookAgain(ctx context.Context) {
	select {
	case <-time.After(headPause):
	case <-ctx.Done():
	}
	if n.survey != nil {
		n.greet(ctx)
	}
}

func (n *network) findHeadOnce(ctx context.Context, f *foundDrive) error {
	f.empty, f.few, f.unheard = true, true, false
	var last error
	for _, found := range n.readHeads(ctx, f) {
		f.unheard = f.unheard || errors.Is(found.Err, devices.ErrUnheard) || found.Err == nil && !found.Heard
		switch h := found.Head; {
		case found.Err != nil:
			if !errors.Is(found.Err, keyring.ErrAbsent) && !errors.Is(found.Err, devices.ErrUnheard) {
				last = found.Err
			}
		case f.empty || devices.Replaces(h, f.head):
			f.head, f.empty, f.few = h, false, found.Few(h.Number)
		}
	}
	if f.empty {
		return last
	}
	f.few = f.few || f.unheard || last != nil // a newer one may be that of another device
	return nil
}

// headsAtOnce is how many heads are looked for at the same time: one that is not
// there is waited for.
const headsAtOnce = 16

// readHeads reads the heads of all devices but the new one.
func (n *network) readHeads(ctx context.Context, f *foundDrive) []devices.Found {
	known := slices.DeleteFunc(f.ring.Known(f.root), func(d keyring.Device) bool { return d.Key == f.own })
	found := make([]devices.Found, len(known))
	var g errgroup.Group
	g.SetLimit(headsAtOnce)
	for i, dev := range known {
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

func (n *network) readHead(ctx context.Context, slots []keyring.Slot, drive keyring.DriveID, device keyring.Device) devices.Found {
	at := devices.Found{Device: device}
	found := n.records.Get(ctx, slotKeys(slots[:keyring.Slots])) // the same in every epoch
	opened, err := keyring.OpenHead(slots, found.Words(), 0)
	if errors.Is(err, keyring.ErrAbsent) && !found.Heard {
		err = devices.ErrUnheard
	}
	if at.Err = err; err != nil {
		return at
	}
	at.Head, err = commit.ParseHead(opened.Value)
	if err != nil || at.Head.Drive != drive || at.Head.Device != device.Key {
		at.Err = errors.Join(err, errors.New("the head is of another drive"))
		return at
	}
	at.Heard, at.Copies = found.Heard, found
	return at
}
