package peers

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/chunker/record"
	"skep/net/wire"
)

// MaxEncoded is the largest encoding that Decode reads, in bytes.
const MaxEncoded = 64 << 20

const storedVersion = 3

// ErrInvalid says that an encoded directory says what cannot be.
var ErrInvalid = errors.New("invalid peer directory")

// stored is a peer as it is encoded. Times are in Unix milliseconds, 0 for
// never.
type stored struct {
	_            struct{} `cbor:",toarray"`
	Key          group.PeerKey
	Addrs        []string
	Offered      int64
	Free         int64
	Region       string
	Domain       string
	HelloAt      int64
	FirstSeen    int64
	LastSeen     int64
	Silent       int64 // ns
	RoundTrip    int64 // ns
	Availability float64
	Windows      int
	Strikes      int
	StruckAt     int64
	Judged       State // by health
	Pinned       bool
}

type storedDirectory struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	Peers   []stored
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func fromMillis(ms int64) time.Time {
	if ms == 0 {
		return time.Time{}
	}
	return time.UnixMilli(ms)
}

// Encode returns the directory for Decode. The answers of the window that has
// not ended yet are not in it.
func (d *Directory) Encode() []byte {
	return record.Encode(storedDirectory{Version: storedVersion, Peers: d.stored()})
}

func (d *Directory) stored() []stored {
	d.mu.RLock()
	defer d.mu.RUnlock()
	var out []stored
	for _, e := range d.peers {
		out = append(out, stored{
			Key: e.Key, Addrs: e.Addrs,
			Offered: e.Offered, Free: e.Free, Region: e.Region, Domain: e.Domain,
			HelloAt: millis(e.HelloAt), FirstSeen: millis(e.FirstSeen), LastSeen: millis(e.LastSeen),
			Silent: int64(e.Silent), RoundTrip: int64(e.RoundTrip), Availability: e.Availability, Windows: e.Windows,
			Strikes: e.Strikes, StruckAt: millis(e.StruckAt), Judged: e.judged, Pinned: e.Pinned,
		})
	}
	slices.SortFunc(out, func(a, b stored) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

// Decode returns the directory that Encode wrote. It fails with
// record.ErrFormat or ErrInvalid; a directory is then begun anew, as nothing
// is lost but experience. Peers beyond o.Max are dropped, the worst first.
func Decode(b []byte, o Options) (*Directory, error) {
	var s storedDirectory
	if err := record.Decode(b, MaxEncoded, &s); err != nil {
		return nil, fmt.Errorf("peer directory: %w", err)
	}
	if s.Version != storedVersion {
		return nil, fmt.Errorf("%w: version %d", ErrInvalid, s.Version)
	}
	d := New(o)
	now := d.opts.Clock()
	for i := range s.Peers {
		p := &s.Peers[i]
		if _, twice := d.peers[p.Key]; twice || !p.valid() {
			return nil, fmt.Errorf("%w: peer %v", ErrInvalid, p.Key)
		}
		d.peers[p.Key] = &entry{Peer: p.peer(now), judged: p.Judged}
	}
	d.evict(nil, now)
	return d, nil
}

func (s *stored) valid() bool {
	for _, a := range s.Addrs {
		if a == "" || len(a) > MaxAddr {
			return false
		}
	}
	return !s.Key.IsZero() && len(s.Addrs) <= MaxAddrs &&
		len(s.Region) <= wire.MaxRegion && len(s.Domain) <= wire.MaxDomain &&
		s.Free >= 0 && s.Free <= s.Offered && s.Silent >= 0 && s.RoundTrip >= 0 &&
		s.Availability >= 0 && s.Availability <= 1 && !math.IsNaN(s.Availability) &&
		s.Windows >= 0 && s.Windows <= memoryWindows &&
		s.Strikes >= 0 && s.Strikes <= maxStrikes && (s.Strikes == 0) == (s.StruckAt == 0) && s.Judged <= Dead
}

// peer is the peer that was stored. What it says of a time that has not come yet was noted
// by a clock that was ahead, and counts as noted now.
func (s *stored) peer(now time.Time) Peer {
	past := func(ms int64) time.Time { return fromMillis(min(ms, now.UnixMilli())) }
	return Peer{
		Key: s.Key, Addrs: joinAddrs(s.Addrs, nil),
		Offered: s.Offered, Free: s.Free, Region: s.Region, Domain: s.Domain,
		HelloAt: past(s.HelloAt), FirstSeen: past(s.FirstSeen), LastSeen: past(s.LastSeen), Silent: time.Duration(s.Silent),
		RoundTrip: time.Duration(s.RoundTrip), Availability: s.Availability, Windows: s.Windows,
		Strikes: s.Strikes, StruckAt: past(s.StruckAt), Pinned: s.Pinned,
	}
}
