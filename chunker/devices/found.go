package devices

import (
	"bytes"
	"cmp"
	"errors"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
)

// ErrUnheard says that too few keepers answered to tell that there is no record.
var ErrUnheard = errors.New("too few keepers answered")

// Found is what a look has found of a device.
type Found struct {
	Device keyring.Device
	Head   commit.Head
	Err    error  // why there is no head; keyring.ErrAbsent if keepers answered, and have none
	Heard  bool   // keepers answered, so many that what none of them has is not there
	Copies Copies // of the head
}

// Copies are those of a record that were found; swarm.Found is such.
type Copies interface {
	// Spread is under how many slot keys, and with how many peers, there is a record of
	// this number or a higher one.
	Spread(number uint64) (slots, peers int)
}

// Few reports whether few copies of a head with this number, or with a higher one, were
// found, or few keepers answered: there may be a newer one than was found. What is
// written has most slots, and several peers where there are several: a group with
// several slots was founded among as many.
func (f Found) Few(number uint64) bool {
	slots, peers := f.Copies.Spread(number)
	return !f.Heard || 2*slots <= keyring.Slots || peers < min(2, int(f.Head.Commit.Coding.N))
}

// Replaces reports whether whoever finds two heads takes the first one: that with the
// higher number, the later time, the greater key of its device. Of the heads of two
// devices one always replaces the other, so that all agree which of them was overtaken.
func Replaces(h, other commit.Head) bool {
	return cmp.Or(cmp.Compare(h.Number, other.Number), cmp.Compare(h.Time, other.Time), bytes.Compare(h.Device[:], other.Device[:])) > 0
}

// Follows reports whether a commit, or nil, is that of a head or came after it.
func Follows(newest *commit.Commit, h commit.Head) bool {
	return newest != nil && newest.After(h.Device, h.Number)
}

// Rival is, of the heads that the newest commit of a device does not follow, the one
// that a recovery takes; nil if there is none.
func Rival(found []Found, self group.PeerKey, newest *commit.Commit) (rival *Found) {
	for i, f := range found {
		if f.Err == nil && f.Device.Key != self && !Follows(newest, f.Head) && (rival == nil || Replaces(f.Head, rival.Head)) {
			rival = &found[i]
		}
	}
	return rival
}
