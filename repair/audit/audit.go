package audit

import (
	"encoding/binary"
	"fmt"
	"math/bits"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
)

// PerDay is how many leaves a day are looked at of what a peer holds.
const PerDay = 458

// Samples is how many leaves of one shard an audit asks for: enough to make a
// chain, few enough to look into many shards.
const Samples = 4

// Holding is what a peer is said to hold of one group.
type Holding struct {
	Group     group.ID
	Slot      uint8
	Packs     group.Bitmap
	ShardSize int
}

// leaves is how many leaves the holding has.
func (h Holding) leaves() uint64 {
	return uint64(h.Packs.Count()) * uint64(erasure.Leaves(h.ShardSize))
}

// Challenge is one audit of one shard.
type Challenge struct {
	Group  group.ID
	Slot   uint8
	Number uint16
	Nonce  erasure.Nonce
	Count  int // of leaves
}

// Leaves is how many leaves a peer holds.
func Leaves(holdings []Holding) (n uint64) {
	for _, h := range holdings {
		n += h.leaves()
	}
	return n
}

// Pick chooses the next challenge for a peer, out of what it is said to hold:
// a shard with a probability in proportion to its leaves. counter must be
// another one each time. It returns false where the peer holds nothing. Equal
// inputs give equal challenges; the order of the holdings is one of them.
func Pick(seed secret.Key, peer group.PeerKey, counter uint64, holdings []Holding) (Challenge, bool) {
	total := Leaves(holdings)
	if total == 0 {
		return Challenge{}, false
	}
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], counter)
	draw := secret.Derive(seed, "skep audit draw v1", peer[:], n[:])
	at, _ := bits.Mul64(binary.BigEndian.Uint64(draw[:]), total) // uniform below total
	for _, h := range holdings {
		if size := h.leaves(); at >= size {
			at -= size
			continue
		}
		return Challenge{
			Group:  h.Group,
			Slot:   h.Slot,
			Number: nth(h.Packs, int(at)/erasure.Leaves(h.ShardSize)),
			Nonce:  erasure.Nonce(secret.Derive(seed, "skep audit nonce v1", peer[:], n[:])),
			Count:  Count(h.ShardSize),
		}, true
	}
	panic("BUG: audit: drawn beyond the last leaf")
}

// Count is how many leaves of a shard of this size an audit asks for.
func Count(shardSize int) int { return min(Samples, erasure.Leaves(shardSize)) }

// nth returns the i-th number in the set, from 0.
func nth(set group.Bitmap, i int) uint16 {
	for n := range uint16(group.MaxPacks) {
		if !set.Has(n) {
			continue
		}
		if i == 0 {
			return n
		}
		i--
	}
	panic("BUG: audit: the set is smaller than its count")
}

// Outcome is what an audit found.
type Outcome uint8

// The outcomes.
const (
	Proved      Outcome = iota // every leaf was right, in time
	Late                       // every leaf was right, but fetching them from elsewhere would have been as fast
	Absent                     // the holder says that it does not have the shard
	Corrupt                    // it sent what is not the shard
	Refused                    // it would not answer, now or at all
	Silent                     // no answer came, though others answer: it may be away
	Unreachable                // it could not be asked, or the answer broke off
)

var outcomeNames = [...]string{"proved", "late", "absent", "corrupt", "refused", "silent", "unreachable"}

// String is the outcome in one word.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return fmt.Sprintf("outcome %d", uint8(o))
}

// Answered reports whether the peer is there: whatever it said, it spoke.
func (o Outcome) Answered() bool { return o != Silent && o != Unreachable }

// Missing reports whether the shard has to be counted as not there.
func (o Outcome) Missing() bool { return o == Absent || o == Corrupt }

// Lie reports whether the holder is to blame: it claimed to hold the shard and
// sent something else. That it says itself that a shard is gone is no lie.
func (o Outcome) Lie() bool { return o == Corrupt }

// Evasive reports whether the holder gave no proof that counts, though it or at least our
// own line was there. Once that is an accident; again and again, of one shard, it is a
// holder that does not have what it states.
func (o Outcome) Evasive() bool { return o == Late || o == Refused || o == Silent }

// The time that an answer may take beside the round trip.
const (
	slack   = 2 * time.Second
	perLeaf = 50 * time.Millisecond // a disk's seek, and the holder's other work
	perMiB  = 4 * time.Second       // a slow uplink
)

// Allowed is how long the answer to a challenge of count leaves may take from
// a peer with this round trip, measured from sending it.
func Allowed(roundTrip time.Duration, count, shardSize int) time.Duration {
	bytes := time.Duration(erasure.SamplesSize(shardSize, count))
	return slack + 2*roundTrip + time.Duration(count)*perLeaf + bytes*perMiB/(1<<20)
}

// InTime is the outcome of an audit that found o and took so long, where so
// much was allowed: what is proved too late is Late.
func InTime(o Outcome, took, allowed time.Duration) Outcome {
	if o == Proved && took > allowed {
		return Late
	}
	return o
}
