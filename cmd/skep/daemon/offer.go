package daemon

import (
	"errors"
	"fmt"

	"github.com/dustin/go-humanize"

	"skep/cache/hosted"
	"skep/cmd/skep/home"
)

// ErrOffer says that an offer is larger than what the disk has room for.
var ErrOffer = errors.New("the offer is larger than the free space of the disk")

// CheckOffer returns ErrOffer when the disk of a home, or of one that is to be
// made, does not have as many bytes, free or already taken by shards of others. No
// daemon may serve the home.
func CheckOffer(h home.Dir, offer int64) error {
	room, err := offerable(h, offer)
	if err != nil {
		return err
	}
	if offer > room {
		return fmt.Errorf("%w: %s offered, room for %s on the disk of %s; offer less with --offer",
			ErrOffer, humanize.IBytes(uint64(offer)), humanize.IBytes(uint64(room)), h)
	}
	return nil
}

// offerable is how much of an offer the disk of a home has room for, or more.
func offerable(h home.Dir, offer int64) (int64, error) {
	if !h.Exists() {
		return h.Free()
	}
	s, err := hosted.Open(h.Path("hosted"), offer)
	if err != nil {
		return 0, err
	}
	room, _ := s.Room()
	return room, s.Close()
}
