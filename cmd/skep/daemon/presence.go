package daemon

import (
	"errors"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/record"
	"skep/cmd/skep/home"
)

// othersHorizon is for how long looks around have to find nothing new of a device
// before it is not taken into account any more.
const othersHorizon = 60 * 24 * time.Hour

// Of the time between two looks a day counts at most, so that a clock that jumps, here,
// makes nobody gone; what passed is taken note of every hour.
const (
	mostBetweenLooks = 24 * time.Hour
	presenceEvery    = time.Hour
)

const presenceFile = "others"

// presence is what looks around have found of the other devices that are there. It asks
// nothing of their clocks: what a device does shows by its being new here.
type presence struct {
	_       struct{} `cbor:",toarray"`
	Looked  int64    // Unix seconds; 0: never
	Devices []seenDevice
}

// seenDevice is what a device did last, and for how long looks have found nothing newer.
type seenDevice struct {
	_       struct{} `cbor:",toarray"`
	Device  group.PeerKey
	Created int64  // of its certificate, which it renews while it is there
	Number  uint64 // of its head
	Silent  int64  // seconds
}

// after is the presence after a look. What keepers had no chance to say is no silence.
// Changed says that somebody did something, or that there is time to take note of.
func (p presence) after(found []foundHead, now time.Time) (next presence, changed bool) {
	since := time.Duration(now.Unix()-p.Looked) * time.Second
	passed := min(max(since, 0), mostBetweenLooks)
	if p.Looked == 0 {
		passed = 0
	}
	changed = since < 0 || since >= presenceEvery || len(p.Devices) != len(found)
	next.Looked = now.Unix()
	for _, f := range found {
		was, known := p.of(f.device.Key)
		is := was.with(f)
		switch {
		case !known || is != was:
			is.Silent, changed = 0, true
		case f.err == nil && f.found.Heard || errors.Is(f.err, keyring.ErrAbsent):
			is.Silent += int64(passed / time.Second)
		}
		next.Devices = append(next.Devices, is)
	}
	return next, changed
}

// with is what a device did last, after some of it was found.
func (s seenDevice) with(f foundHead) seenDevice {
	s.Device, s.Created = f.device.Key, max(s.Created, f.device.Created)
	if f.err == nil {
		s.Number = max(s.Number, f.head.Number)
	}
	return s
}

func (p presence) of(device group.PeerKey) (seenDevice, bool) {
	i := slices.IndexFunc(p.Devices, func(s seenDevice) bool { return s.Device == device })
	if i < 0 {
		return seenDevice{}, false
	}
	return p.Devices[i], true
}

// lives reports whether a device was seen to do something lately, or is new.
func (p presence) lives(device group.PeerKey) bool {
	s, _ := p.of(device)
	return time.Duration(s.Silent)*time.Second < othersHorizon
}

// loadPresence reads what was seen by looks before. What cannot be read is begun anew.
func loadPresence(h home.Dir) (p presence, err error) {
	b, err := h.ReadFile(presenceFile)
	if err != nil || b == nil {
		return p, err
	}
	if record.Decode(b, 1<<20, &p) != nil {
		return presence{}, nil
	}
	return p, nil
}

// sees takes note of what a look has found, and returns all that is known then. Joined says
// that a device was found for the first time that was not there when this one began.
func (d *drive) sees(found []foundHead, now time.Time) (all presence, joined bool, err error) {
	d.presenceMu.Lock()
	defer d.presenceMu.Unlock()
	next, changed := d.presence.after(found, now)
	if !changed {
		return d.presence, false, nil
	}
	for _, s := range next.Devices {
		_, known := d.presence.of(s.Device)
		_, before := d.began[s.Device]
		joined = joined || !known && !before
	}
	if err := d.home.WriteFile(presenceFile, record.Encode(next)); err != nil {
		return next, false, err
	}
	d.presence = next
	return next, joined, nil
}
