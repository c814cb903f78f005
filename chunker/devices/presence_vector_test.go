package devices

import (
	"reflect"
	"testing"

	"skep/chunker/group"
	"skep/test/vectors"
)

func TestPresenceVector(t *testing.T) {
	p := Presence{Looked: 1_800_000_000, Devices: []Seen{{Device: group.PeerKey{1}, Created: 1_700_000_000, Number: 300, Silent: 86_400}}}
	vectors.Check(t, "presence", "what looks have found of one other device", p.Encode())
	if got := ParsePresence(p.Encode()); !reflect.DeepEqual(got, p) {
		t.Errorf("%+v", got)
	}
}
