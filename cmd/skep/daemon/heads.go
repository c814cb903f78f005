package daemon

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/chunker/commit"
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
func (n *network) findHead(ctx context.Context, f *foundDrive) error {
	for try := 1; ; try++ {
		err := n.findHeadOnce(ctx, f)
		if err != nil || !f.few || try == headTries || ctx.Err() != nil {
			return err
		}
		select {
		case <-time.After(headPause):
		case <-ctx.Done():
		}
		if n.survey != nil {
			n.survey.Round(ctx)
		}
	}
}

func (n *network) findHeadOnce(ctx context.Context, f *foundDrive) error {
	f.empty, f.few = true, true
	var last error
	for _, found := range n.readHeads(ctx, f) {
		switch h := found.head; {
		case found.err != nil:
			if !errors.Is(found.err, keyring.ErrAbsent) {
				last = found.err
			}
		case f.empty || h.Number > f.head.Number || h.Number == f.head.Number && h.Time > f.head.Time:
			f.head, f.empty, f.few = h, false, found.few
		}
	}
	if f.empty {
		return last
	}
	return nil
}

// headsAtOnce is how many heads are looked for at the same time: one that is not
// there is waited for.
const headsAtOnce = 16

type foundHead struct {
	head  commit.Head
	until int64 // when its record ends
	few   bool  // few of its copies were found: there may be a newer one
	err   error
}

// readHeads reads the heads of all devices in all epochs.
func (n *network) readHeads(ctx context.Context, f *foundDrive) []foundHead {
	devices := f.ring.Known(f.root)
	found := make([]foundHead, len(devices)*len(f.drive.Epochs))
	var g errgroup.Group
	g.SetLimit(headsAtOnce)
	for i, dev := range devices {
		for e := range f.drive.Epochs {
			g.Go(func() error {
				slots := keyring.HeadSlots(f.root, f.drive.ID, dev.Key, f.drive.Epochs[e])
				at := &found[i*len(f.drive.Epochs)+e]
				*at = n.readHead(ctx, slots, f.drive.ID, dev.Key)
				return nil
			})
		}
	}
	_ = g.Wait()
	return found
}

func (n *network) readHead(ctx context.Context, slots []keyring.Slot, drive keyring.DriveID, device group.PeerKey) foundHead {
	opened, err := keyring.OpenHead(slots, n.records.Get(ctx, slotKeys(slots)), 0)
	if err != nil {
		return foundHead{err: err}
	}
	h, err := commit.ParseHead(opened.Value)
	if err != nil || h.Drive != drive || h.Device != device {
		return foundHead{err: errors.Join(err, errors.New("the head is of another drive"))}
	}
	return foundHead{head: h, until: opened.Until, few: opened.Few()}
}
