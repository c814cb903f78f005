package health

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
)

// ErrFewHolders says that content is with too few holders to be let go of here.
var ErrFewHolders = errors.New("too few of its holders answer")

// Evidence is what is known of a pack when content of it that is on this device may have
// to go.
type Evidence struct {
	Pack    PackHealth // the zero PackHealth if repair does not know the pack
	Coding  erasure.Coding
	Enough  int          // slots with which a pack so coded counts as out
	Holders []peers.Peer // of the slots that acknowledged it; who is not known is the zero Peer
	Online  bool         // others answer this device
}

// Held returns nil if a pack is with as many holders as one needs to count as out, those
// that are thought gone apart, and those that were not asked in this run (what an earlier
// one heard of them proves nothing now); if so many of its shards are not only presumed to be
// there; and if it could be read from them, and from those that answer now, and one of them
// to spare. While nobody answers at all, that is not held against them. Else it fails with
// ErrFewHolders.
func (e Evidence) Held() error {
	if e.Pack.Health == Lost || e.Online && e.Pack.Away {
		return fmt.Errorf("%w to read it", ErrFewHolders)
	}
	there, answering := 0, 0
	for _, p := range e.Holders {
		if !p.Asked || !p.IsThere() {
			continue
		}
		if there++; p.Misses == 0 {
			answering++
		}
	}
	spare := min(int(e.Coding.K)+1, int(e.Coding.N))
	need := max(e.Enough, spare)
	if there < need {
		return fmt.Errorf("%w: %d of the %d that are enough", ErrFewHolders, there, need)
	}
	if said := e.Pack.Live - e.Pack.Unasked; e.Pack.Unasked > 0 && said < need {
		return fmt.Errorf("%w whether they have it: %d of the %d that are enough", ErrFewHolders, said, need)
	}
	if e.Online && answering < spare {
		return fmt.Errorf("%w now: %d of the %d that are enough to read it", ErrFewHolders, answering, spare)
	}
	return nil
}

// heardLately is how old an answer may be that shows that a device is online.
const heardLately = time.Hour

// Online reports whether somebody else answered a device lately, in this run, and each
// time since.
func Online(known []peers.Peer, self group.PeerKey, now time.Time) bool {
	return slices.ContainsFunc(known, func(p peers.Peer) bool {
		return p.Key != self && p.Asked && p.Misses == 0 && now.Sub(p.LastSeen) < heardLately
	})
}
