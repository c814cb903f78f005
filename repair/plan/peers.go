package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/place"
)

// Of is the plan for some peers, all of whom are there to take something. Those that name
// no household share one with all others in their network, as when slots are placed.
func Of(of []place.Candidate) Plan {
	ps := make([]Peer, len(of))
	for i, c := range of {
		ps[i] = Peer{Availability: c.Availability, Domain: c.Domain.Narrowest()}
	}
	return New(Requirement{}, ps)
}

// Among returns the peers with whom to store something now, of all that may take it, of
// whom some answer: all, as what is missing with those that are away is filled when they
// are back; but those that answer, if so many are away that it would not be out, or would
// not survive the loss of a holder.
func Among(all, answering []place.Candidate) []place.Candidate {
	if len(answering) == 0 || len(answering) == len(all) {
		return all
	}
	c := Of(all).For(erasure.MaxClass)
	taken := int(c.Coding.N) * len(answering) / len(all)
	if taken >= max(c.Enough, int(c.Coding.K)+1) {
		return all
	}
	return answering
}

// Slots returns how a pack of a class is coded, and the holders of its slots. Only
// peers that have room for a shard of it count, or those that are full would keep
// the others from taking anything. It fails with place.ErrTooFew.
func Slots(class erasure.Class, from []place.Candidate, rnd *rand.Rand) (erasure.Coding, []group.PeerKey, error) {
	best, from := Best(class, from)
	coding := best.Coding
	if coding.N == 0 {
		return coding, nil, fmt.Errorf("%w: no peer with room is known", place.ErrTooFew)
	}
	placed, err := place.Choose(place.Request{Slots: int(coding.N), Bytes: int64(coding.ShardSize(class))}, from, rnd)
	if err != nil {
		return coding, nil, err
	}
	return coding, placed.Peers, nil
}

// Best returns the choice for a class with some peers, and those of them that have room
// for a shard of it. Where none has, the choice is the zero Choice.
func Best(class erasure.Class, from []place.Candidate) (Choice, []place.Candidate) {
	for {
		best := Of(from).For(class)
		if best.Coding.N == 0 {
			return best, nil
		}
		roomy := WithRoom(from, int64(best.Coding.ShardSize(class)))
		if len(roomy) == len(from) {
			return best, from
		}
		from = roomy
	}
}

// WithRoom returns those peers that have so much room.
func WithRoom(from []place.Candidate, bytes int64) []place.Candidate {
	var out []place.Candidate
	for _, c := range from {
		if c.Free >= bytes {
			out = append(out, c)
		}
	}
	return out
}

// Storable is how many bytes of content some peers could take in packs of a class: the
// most of what those could, coded for them alone, that have the most room. The others
// are left out by halves of the room that they have, the smallest first.
func Storable(class erasure.Class, in []place.Candidate) (most int64) {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b place.Candidate) int { return cmp.Compare(b.Free, a.Free) })
	free := make([]int64, len(in))
	for i, c := range in {
		free[i] = min(c.Free, mostFreeOf)
	}
	for n := len(in); n > 0; {
		c := Of(in[:n]).For(class).Coding
		most = max(most, fits(free[:n], int(c.K), int(c.N)))
		for least := free[n-1]; n > 0 && free[n-1] < max(least+1, 2*least); {
			n--
		}
	}
	return most
}

// mostFreeOf is the most that is believed of one peer's word about its room.
const mostFreeOf = 64 << 40

// fits is how many bytes of content fit into the free room of some peers, coded k of
// n. The n shards of a pack lie with n peers, so that the room of one that has much
// more than the others is of no use beyond theirs.
func fits(free []int64, k, n int) int64 {
	if k <= 0 || n < k || len(free) < n {
		return 0
	}
	lo, hi := int64(0), int64(mostFreeOf) // the most that each slot can take, over all packs
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		var sum int64
		for _, f := range free {
			sum += min(max(0, f), mid)
		}
		if sum/int64(n) >= mid {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo * int64(k)
}
