package health

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/chunker/record"
)

// MaxMemory is the largest encoding that Restore reads, in bytes.
const MaxMemory = 16 << 20

const memoryVersion = 3

// ErrInvalid says that an encoded memory says what cannot be.
var ErrInvalid = errors.New("invalid memory of peers")

// remembered is what outlasts a restart: what took long to learn of a peer.
type remembered struct {
	_      struct{} `cbor:",toarray"`
	Key    group.PeerKey
	Seen   int64 // Unix milliseconds
	Silent int64 // ms that were watched since then
	Lies   []int64
	Owed   []rememberedOwed
}

// rememberedOwed is a shard that a peer owes a proof of.
type rememberedOwed struct {
	_      struct{} `cbor:",toarray"`
	Group  group.ID
	Slot   uint8
	Number uint16
	Since  int64 // ms that were watched since then
	Vain   int
}

func (o rememberedOwed) isWrong() bool { return o.Since < 0 || o.Vain < 0 || o.Vain > maxEvasions }

type memory struct {
	_       struct{} `cbor:",toarray"`
	Version uint8
	At      int64        // when it was encoded, Unix milliseconds
	Peers   []remembered // by key, each once
}

// Encode returns what Restore needs: for how long which peer has been silent, who lied,
// and who owes a proof. All else is found out again.
func (s *State) Encode(now time.Time) []byte {
	m := memory{Version: memoryVersion, At: now.UnixMilli()}
	for _, key := range s.peerOrder {
		p := s.peers[key]
		r := remembered{Key: key, Seen: p.seen.UnixMilli()}
		r.Silent = min(s.watch.total-p.seenWatch, s.cfg.DeadAfter).Milliseconds()
		for _, t := range p.lies {
			r.Lies = append(r.Lies, t.UnixMilli())
		}
		for _, o := range p.owed {
			since := min(s.watch.total-o.since, s.cfg.DeadAfter).Milliseconds()
			r.Owed = append(r.Owed, rememberedOwed{Group: o.group, Slot: o.slot, Number: o.number, Since: since, Vain: min(o.vain, maxEvasions)})
		}
		m.Peers = append(m.Peers, r)
	}
	return record.Encode(m)
}

// Restore takes in what Encode gave in an earlier life. It is to be called
// before any other method. It fails with record.ErrFormat or ErrInvalid and
// then changes nothing: what was forgotten is learnt again.
//
// Where that life ended longer ago than each holder is asked about each of its slots, as
// after a long sleep or on a disk that was put back from a backup, what the account says
// to be with holders is presumed until they were asked.
func (s *State) Restore(b []byte, now time.Time) error {
	var m memory
	if err := record.Decode(b, MaxMemory, &m); err != nil {
		return fmt.Errorf("memory of peers: %w", err)
	}
	if m.Version != memoryVersion {
		return fmt.Errorf("%w: version %d", ErrInvalid, m.Version)
	}
	var before group.PeerKey
	for _, r := range m.Peers {
		if comparePeers(before, r.Key) >= 0 || r.Silent < 0 || len(r.Lies) > MaxLies || len(r.Owed) > maxOwed || slices.ContainsFunc(r.Owed, rememberedOwed.isWrong) {
			return fmt.Errorf("%w: peer %v", ErrInvalid, r.Key)
		}
		before = r.Key
	}
	s.dated = now.Sub(time.UnixMilli(m.At)).Abs() > s.cfg.askedIn()
	for _, r := range m.Peers {
		p := s.peerOf(r.Key, now)
		p.kept = true
		p.seen = earlier(time.UnixMilli(r.Seen), now)
		p.seenWatch = s.watch.total - s.watched(r.Silent)
		for _, o := range r.Owed {
			p.owed = append(p.owed, owed{shard: shard{o.Group, o.Slot, o.Number}, since: s.watch.total - s.watched(o.Since), vain: o.Vain})
		}
		p.shirks = slices.ContainsFunc(p.owed, s.isGone)
		for _, t := range r.Lies {
			p.lies = append(p.lies, earlier(time.UnixMilli(t), now))
		}
		s.judge(p, now)
	}
	return nil
}

// watched is a time of so many milliseconds, as far as it matters.
func (s *State) watched(ms int64) time.Duration {
	return time.Duration(min(ms, s.cfg.DeadAfter.Milliseconds()+1)) * time.Millisecond
}

// Doubt has what the account says to be with holders be presumed until they were asked: what
// Restore needs is lost, and so is how long ago they were. It is to be called before any
// group is set.
func (s *State) Doubt() { s.dated = true }

// earlier keeps a clock that was set back from making the past the future.
func earlier(t, now time.Time) time.Time {
	if t.After(now) {
		return now
	}
	return t
}
