package devices

import (
	"reflect"
	"testing"
	"time"

	"skep/chunker/commit"
	"skep/chunker/group"
	"skep/chunker/keyring"
)

const (
	hour = time.Hour
	day  = 24 * hour
)

// Silence is what keepers had a chance to break, of the steps between looks.
func TestPresence(t *testing.T) {
	at := Found{Device: keyring.Device{Key: group.PeerKey{1}, Created: 100}, Head: commit.Head{Number: 5}, Heard: true}
	absent, unheard, older, newer, renewed, partly := at, at, at, at, at, at
	absent.Err, unheard.Err = keyring.ErrAbsent, ErrUnheard
	older.Head.Number, newer.Head.Number, renewed.Device.Created = 4, 6, 101
	partly.Heard = false
	for name, c := range map[string]struct {
		found  Found
		passed time.Duration
		want   time.Duration
	}{
		"nothing new":                 {at, hour, 11 * hour},
		"no head any more":            {absent, hour, 11 * hour},
		"keepers do not answer":       {unheard, hour, 10 * hour},
		"most of them do not":         {partly, hour, 10 * hour},
		"an older commit":             {older, hour, 11 * hour},
		"a commit":                    {newer, hour, 0},
		"a new certificate":           {renewed, hour, 0},
		"the clock here jumped":       {at, 400 * day, 34 * hour},
		"the clock here was set back": {at, -400 * day, 10 * hour},
	} {
		p := Presence{Looked: now.Unix(), Devices: []Seen{{Device: group.PeerKey{1}, Created: 100, Number: 5, Silent: 36000}}}
		next, changed := p.After([]Found{c.found}, now.Add(c.passed))
		if got := time.Duration(next.Devices[0].Silent) * time.Second; got != c.want || !changed {
			t.Errorf("%s: silent for %v, not %v; changed %v", name, got, c.want, changed)
		}
		if _, changed := p.After([]Found{at}, now.Add(time.Minute)); changed {
			t.Errorf("a minute is taken note of")
		}
	}
}

// A device is there until looks have found nothing new of it for sixty days.
func TestLives(t *testing.T) {
	silent := func(d time.Duration) Seen { return Seen{Device: group.PeerKey{1}, Silent: int64(d / time.Second)} }
	p := Presence{Devices: []Seen{silent(60*day - time.Second)}}
	if !p.Lives(group.PeerKey{1}) || !p.Lives(group.PeerKey{2}) {
		t.Error("one that did something, or is new, is gone")
	}
	if p.Devices[0] = silent(60 * day); p.Lives(group.PeerKey{1}) {
		t.Error("one that was silent for sixty days is there")
	}
}

// What was seen comes back as it was; what is damaged is begun anew.
func TestPresenceIsKept(t *testing.T) {
	p := Presence{Looked: 7, Devices: []Seen{{Device: group.PeerKey{1}, Created: 2, Number: 3, Silent: 4}}}
	if got := ParsePresence(p.Encode()); !reflect.DeepEqual(got, p) {
		t.Errorf("%+v", got)
	}
	for _, b := range [][]byte{nil, []byte("what is no record"), append(p.Encode(), 0)} {
		if got := ParsePresence(b); !reflect.DeepEqual(got, Presence{}) {
			t.Errorf("%x: %+v", b, got)
		}
	}
}
