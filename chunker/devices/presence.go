package devices

import (
	"errors"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/record"
)

// Horizon is for how long looks around have to find nothing new of a device before it is
// not taken into account any more.
const Horizon = 60 * 24 * time.Hour

// fewFor is for how long looks have to find nothing new of a device before few copies of
// its head say no more than none: those who are away for so long are not waited for.
const fewFor = 7 * 24 * time.Hour

// Of the time between two looks a day counts at most, so that a clock that jumps, here,
// makes nobody gone; what passed is taken note of every hour.
const (
	mostBetweenLooks = 24 * time.Hour
	presenceEvery    = time.Hour
)

// Presence is what looks around have found of the other devices that are there. It asks
// nothing of their clocks: what a device does shows by its being new here. The zero
// Presence is that of no look.
type Presence struct {
	_       struct{} `cbor:",toarray"`
	Looked  int64    // Unix seconds; 0: never
	Devices []Seen
}

// Seen is what a device did last, and for how long looks have found nothing newer.
type Seen struct {
	_       struct{} `cbor:",toarray"`
	Device  group.PeerKey
	Created int64  // of its certificate, which it renews while it is there
	Number  uint64 // of its head
	Silent  int64  // seconds
}

// maxPresence bounds an encoded Presence, in bytes.
const maxPresence = 1 << 20

// ParsePresence reads what Encode gave. What cannot be read is begun anew.
func ParsePresence(b []byte) (p Presence) {
	if record.Decode(b, maxPresence, &p) != nil {
		return Presence{}
	}
	return p
}

// Encode returns what ParsePresence reads.
func (p Presence) Encode() []byte { return record.Encode(p) }

// After is the presence after a look. What keepers had no chance to say is no silence.
// Changed says that somebody did something, or that there is time to take note of.
func (p Presence) After(found []Found, now time.Time) (next Presence, changed bool) {
	since := time.Duration(now.Unix()-p.Looked) * time.Second
	passed := min(max(since, 0), mostBetweenLooks)
	if p.Looked == 0 {
		passed = 0
	}
	changed = since < 0 || since >= presenceEvery || len(p.Devices) != len(found)
	next.Looked = now.Unix()
	for _, f := range found {
		was, known := p.Of(f.Device.Key)
		is := was.with(f)
		switch {
		case !known || is != was:
			is.Silent, changed = 0, true
		case f.Err == nil && f.Heard || errors.Is(f.Err, keyring.ErrAbsent):
			is.Silent += int64(passed / time.Second)
		}
		next.Devices = append(next.Devices, is)
	}
	return next, changed
}

// with is what a device did last, after some of it was found.
func (s Seen) with(f Found) Seen {
	s.Device, s.Created = f.Device.Key, max(s.Created, f.Device.Created)
	if f.Err == nil {
		s.Number = max(s.Number, f.Head.Number)
	}
	return s
}

// Of is what was seen of a device, if anything was.
func (p Presence) Of(device group.PeerKey) (Seen, bool) {
	i := slices.IndexFunc(p.Devices, func(s Seen) bool { return s.Device == device })
	if i < 0 {
		return Seen{}, false
	}
	return p.Devices[i], true
}

// Lives reports whether a device was seen to do something lately, or is new.
func (p Presence) Lives(device group.PeerKey) bool { return p.silent(device) < Horizon }

// silent is for how long looks have found nothing new of a device.
func (p Presence) silent(device group.PeerKey) time.Duration {
	s, _ := p.Of(device)
	return time.Duration(s.Silent) * time.Second
}
