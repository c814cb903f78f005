package devices

import (
	"testing"

	"skep/chunker/commit"
	"skep/chunker/group"
)

// Of any two heads of two devices one replaces the other, and of several all readers take
// the same one, in whatever order they find them.
func TestReplaces(t *testing.T) {
	var rising []commit.Head
	for number := range uint64(2) {
		for at := range int64(2) {
			for device := range byte(2) {
				h := head(group.PeerKey{31: device}, number, 0)
				h.Time = at
				rising = append(rising, h)
			}
		}
	}
	for i, a := range rising {
		for j, b := range rising {
			if Replaces(a, b) != (i > j) {
				t.Errorf("%d replaces %d: %v", i, j, !(i > j))
			}
		}
	}
}
