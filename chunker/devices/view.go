package devices

import (
	"errors"
	"fmt"
	"io"
	"time"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
)

// OthersError says that there is a device whose commits this one does not follow.
type OthersError struct{ Device keyring.Device }

func (o *OthersError) Error() string {
	return Describe(o.Device) + " may need what was deleted here, so that it goes on taking room at the peers"
}

// Describe says which other device it is.
func Describe(d keyring.Device) string {
	name := d.Name
	if name == "" {
		name = "without a name"
	}
	return fmt.Sprintf("another device of the drive (%s, since %s)", name, time.Unix(d.Created, 0).Format(time.DateOnly))
}

// SetBackError says that this device published a commit that it does not know of any
// more: what it knows was set back.
type SetBackError struct{ Number, Here uint64 }

func (e *SetBackError) Error() string {
	return fmt.Sprintf("keepers have commit %d of this device, which is not the one that is here (%d)", e.Number, e.Here)
}

// ErrUnkept says that too few keepers have this device's head: it is to be brought to them
// again.
var ErrUnkept = errors.New("too few keepers have this device's head")

// View is what a device knows when it judges what a look has found.
type View struct {
	Self   group.PeerKey
	Began  map[group.PeerKey]int64 // when those were certified that it knew of when it began: it took their place
	Newest *commit.Commit          // nil: none
	// Its own last head, before and after it looked; of number 0 if there is none.
	First, Last commit.Head
	Seen        Presence // with what the look has found
}

// Format hides keys in what the commits name from every formatting verb.
func (View) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "devices.View(…)") }

// Judge returns why there may be commits that the newest one here does not follow, or why
// that cannot be told; nil if there are none. The reasons are OthersErrors, a
// SetBackError, and others joined.
func (v View) Judge(found []Found) error {
	var errs []error
	for _, f := range found {
		judge := v.judgeOther
		if f.Device.Key == v.Self {
			judge = v.judgeOwn
		}
		if err := judge(f); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// judgeOwn is about this device's own head: it has to be found, and to be the one that
// is known here.
func (v View) judgeOwn(f Found) error {
	not := func(own commit.Head) bool { return f.Head.Number == own.Number && f.Head.Commit != own.Commit }
	switch {
	case errors.Is(f.Err, keyring.ErrAbsent) && v.First.Number == 0:
		return nil
	case errors.Is(f.Err, keyring.ErrAbsent):
		return ErrUnkept
	case f.Err != nil:
		return fmt.Errorf("this device's head: %w", f.Err)
	case f.Head.Number > v.Last.Number || not(v.First) || not(v.Last):
		return &SetBackError{Number: f.Head.Number, Here: v.Last.Number}
	case f.Few(v.First.Number) && f.Heard: // another may be on its way meanwhile
		return ErrUnkept
	case !f.Heard:
		return fmt.Errorf("this device's head: %w", ErrUnheard)
	}
	return nil
}

// judgeOther is about another device. One that is newer than this one did not know
// how far it would come: it may make a commit at any time that follows an old one. So
// may one that has renewed its certificate since: it is there. Of one whose place this
// one took, a head counts that is not followed, also if it was found by an earlier look
// alone: it may come back with those who keep it. Few copies of one that is followed say
// that a newer one may be with keepers who are away; not for ever, as keepers end one
// after the other, and nobody brings its head to others.
func (v View) judgeOther(f Found) error {
	absent := errors.Is(f.Err, keyring.ErrAbsent)
	created, known := v.Began[f.Device.Key]
	switch later := !known || created != f.Device.Created; {
	case f.Err != nil && !absent:
		return fmt.Errorf("the head of another device: %w", f.Err)
	case !v.Seen.Lives(f.Device.Key):
		return nil
	case later:
		return &OthersError{f.Device}
	case !v.followsSeen(f.Device.Key):
		return &OthersError{f.Device}
	case absent:
		return nil
	case f.Few(f.Head.Number) && (!f.Heard || v.Seen.silent(f.Device.Key) < fewFor):
		return fmt.Errorf("the head of another device: %w", ErrUnheard)
	}
	return nil
}

// followsSeen reports whether the newest commit follows the last head that was found of a
// device, now or before.
func (v View) followsSeen(device group.PeerKey) bool {
	seen, _ := v.Seen.Of(device)
	return seen.Number == 0 || v.Newest != nil && v.Newest.After(device, seen.Number)
}

// SetBackBy judges what keepers have under a device's slots instead of a head that it put
// there; nil if that is no other than they should. last is the last one that the device
// knows to be its own: it may have been published meanwhile, or be kept for longer.
func SetBackBy(slots []keyring.Slot, instead [][]byte, last commit.Head) *SetBackError {
	opened, err := keyring.OpenHead(slots, instead, 0)
	if err != nil {
		return &SetBackError{Number: last.Number, Here: last.Number}
	}
	other, err := commit.ParseHead(opened.Value)
	if err == nil && (other.Number < last.Number || other.Number == last.Number && other.Commit == last.Commit) {
		return nil
	}
	return &SetBackError{Number: opened.Number, Here: last.Number}
}
