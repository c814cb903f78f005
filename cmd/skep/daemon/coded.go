package daemon

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"

	"skep/cache/space"
	"skep/cache/writeback"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/place"
	"skep/repair/plan"
)

// planOf is the plan for some peers.
func planOf(of []place.Candidate) plan.Plan {
	ps := make([]plan.Peer, len(of))
	for i, c := range of {
		ps[i] = plan.Peer{Availability: c.Availability, Domain: c.Domain[place.Household]}
	}
	return plan.New(plan.Requirement{}, ps)
}

// coded returns how a pack of a class is coded, and the holders of its slots. Only
// peers that have room for a shard of it count, or those that are full would keep
// the others from taking anything.
func coded(class erasure.Class, from []place.Candidate, rnd *rand.Rand) (erasure.Coding, []group.PeerKey, error) {
	for {
		coding := planOf(from).For(class).Coding
		if coding.N == 0 {
			return coding, nil, fmt.Errorf("%w: no peer with room is known", writeback.ErrTooFew)
		}
		bytes := int64(coding.ShardSize(class))
		if roomy := withRoom(from, bytes); len(roomy) < len(from) {
			from = roomy
			continue
		}
		placed, err := place.Choose(place.Request{Slots: int(coding.N), Bytes: bytes}, from, rnd)
		if err != nil {
			return coding, nil, fmt.Errorf("%w: %w", writeback.ErrTooFew, err)
		}
		return coding, placed.Peers, nil
	}
}

func withRoom(from []place.Candidate, bytes int64) []place.Candidate {
	var out []place.Candidate
	for _, c := range from {
		if c.Free >= bytes {
			out = append(out, c)
		}
	}
	return out
}

// storable is how many bytes of content some peers could take: the most of what
// those could, coded for them alone, that have the most room. The others are left
// out by halves of the room that they have, the smallest first.
func storable(in []place.Candidate) (most int64) {
	in = slices.Clone(in)
	slices.SortFunc(in, func(a, b place.Candidate) int { return cmp.Compare(b.Free, a.Free) })
	free := make([]int64, len(in))
	for i, c := range in {
		free[i] = c.Free
	}
	for n := len(in); n > 0; {
		c := planOf(in[:n]).For(contentClass).Coding
		most = max(most, space.Storable(free[:n], int(c.K), int(c.N)))
		for least := free[n-1]; n > 0 && free[n-1] < max(least+1, 2*least); {
			n--
		}
	}
	return most
}
