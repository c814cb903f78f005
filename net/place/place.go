package place

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"

	"skep/chunker/group"
)

// Level is one of the kinds of domain, the narrowest first. What shares a
// narrow domain fails together more often.
type Level int

// The levels.
const (
	Household Level = iota
	AddressGroup
	Operator
	Country
	Levels // how many there are
)

// Domain says what a peer fails together with, by level. A level that is empty
// is taken to be the next wider one that is not: of two peers in one address
// group that name no household, we assume that they share it.
type Domain [Levels]string

// at returns the domain at each level, with the empty ones filled in.
func (d Domain) at() Domain {
	for l := Levels - 2; l >= 0; l-- {
		if d[l] == "" {
			d[l] = d[l+1]
		}
	}
	return d
}

// Narrowest is the narrowest domain that is known: what the peer most likely fails
// together with. It is empty if none is.
func (d Domain) Narrowest() string { return d.at()[Household] }

// Candidate is a peer that may become a holder.
type Candidate struct {
	Key          group.PeerKey
	Free         int64  // bytes that it still offers
	Region       string // "DE", "DE-BY", "DE-BY/1"; "" is unknown
	Domain       Domain
	Availability float64 // 0 … 1
	Load         int     // slots of ours that it holds
}

// Policy says where slots may be. A region covers those inside it: "DE" covers
// "DE-BY", and "DE-BY" covers "DE-BY/1". The zero Policy allows everything.
type Policy struct {
	Only   []string // if there are any, slots lie in one of these regions
	Never  []string // no slot lies in one of these
	Prefer []string // of equally spread candidates, those in one of these come first
}

// Allows reports whether a peer in this region may hold a slot. An unknown
// region is in none.
func (p Policy) Allows(region string) bool {
	return (len(p.Only) == 0 || within(region, p.Only)) && !within(region, p.Never)
}

func within(region string, of []string) bool {
	return slices.ContainsFunc(of, func(r string) bool {
		rest, ok := strings.CutPrefix(region, r)
		return ok && r != "" && (rest == "" || rest[0] == '-' || rest[0] == '/')
	})
}

// Request says what is to be placed.
type Request struct {
	Slots  int             // how many holders are wanted
	Bytes  int64           // room that a holder must have
	Beside []Candidate     // holders of the group's other slots: not picked again, and spread away from
	Not    []group.PeerKey // peers never to be picked, such as the holder that is being replaced
	Policy Policy
}

// Placement is what Choose found.
type Placement struct {
	Peers   []group.PeerKey // distinct, in the order of the slots
	Fullest [Levels]int     // the most slots of the group, those beside included, in one domain
}

// ErrTooFew says that there are fewer candidates with room, allowed and not
// used yet, than slots to be placed.
var ErrTooFew = errors.New("too few peers with room")

// Choose picks distinct peers for the slots of the request. Where there are
// too few it returns those there are, with ErrTooFew. It draws from rnd and
// does not keep it; candidates are not changed.
func Choose(r Request, candidates []Candidate, rnd *rand.Rand) (Placement, error) {
	c := newChooser(r)
	pool := c.eligible(candidates, rnd)
	var p Placement
	for len(p.Peers) < r.Slots && len(pool) > 0 {
		i := c.best(pool)
		p.Peers = append(p.Peers, pool[i].PeerKey)
		c.count(pool[i].at)
		pool = slices.Delete(pool, i, i+1)
	}
	p.Fullest = c.fullest
	if missing := r.Slots - len(p.Peers); missing > 0 {
		return p, fmt.Errorf("%w: %d of %d slots have none", ErrTooFew, missing, r.Slots)
	}
	return p, nil
}

// ranked is a candidate with what does not change while slots are filled.
type ranked struct {
	group.PeerKey
	at   [Levels]int // numbers of its domains
	rank int         // the greater, the better
}

// eligible returns the candidates that may be picked, in an order that depends
// on nothing but the set of them and rnd.
func (c *chooser) eligible(candidates []Candidate, rnd *rand.Rand) []ranked {
	r := c.request
	barred := map[group.PeerKey]bool{{}: true}
	for _, k := range r.Not {
		barred[k] = true
	}
	for _, b := range r.Beside {
		barred[b.Key] = true
	}
	var pool []ranked
	for _, p := range candidates {
		if !barred[p.Key] && p.Free >= r.Bytes && p.Free > 0 && r.Policy.Allows(p.Region) {
			pool = append(pool, ranked{p.Key, c.number(p.Domain), rank(p, r.Policy)})
		}
	}
	slices.SortFunc(pool, func(a, b ranked) int {
		return cmp.Or(bytes.Compare(a.PeerKey[:], b.PeerKey[:]), cmp.Compare(b.rank, a.rank))
	})
	pool = slices.CompactFunc(pool, func(a, b ranked) bool { return a.PeerKey == b.PeerKey })
	rnd.Shuffle(len(pool), func(i, j int) { pool[i], pool[j] = pool[j], pool[i] })
	return pool
}

// believed is the most free room that counts: a peer says itself how much it has, and one
// that says more than anybody can have would get all slots.
const believed = 4 << 40

// rank weighs a candidate by itself: the free room for each slot of ours that
// it would hold, counted for the time that it is there, in powers of two, so
// that peers of about the same worth are equals and chance spreads over them.
func rank(c Candidate, policy Policy) int {
	worth := float64(min(c.Free, believed)) / float64(c.Load+1) * min(max(c.Availability, 0.01), 1)
	n := int(math.Floor(math.Log2(worth)))
	if within(c.Region, policy.Prefer) {
		n += 1 << 10 // more than any room
	}
	return n
}

// chooser counts how many slots each domain has.
type chooser struct {
	request Request
	numbers [Levels]map[string]int // of the domains, by name
	slots   [Levels][]int          // by the domain's number
	fullest [Levels]int
}

func newChooser(r Request) *chooser {
	c := &chooser{request: r}
	for l := range c.numbers {
		c.numbers[l] = map[string]int{}
	}
	for _, b := range r.Beside {
		c.count(c.number(b.Domain))
	}
	return c
}

// number returns the numbers of a peer's domains, new ones for those not seen
// before.
func (c *chooser) number(d Domain) (at [Levels]int) {
	for l, name := range d.at() {
		n, ok := c.numbers[l][name]
		if !ok {
			n = len(c.slots[l])
			c.numbers[l][name] = n
			c.slots[l] = append(c.slots[l], 0)
		}
		at[l] = n
	}
	return at
}

func (c *chooser) count(at [Levels]int) {
	for l, n := range at {
		c.slots[l][n]++
		c.fullest[l] = max(c.fullest[l], c.slots[l][n])
	}
}

// best returns the index of the candidate whose domains have the fewest slots,
// the narrowest level first; of those the one of the best rank; of those the
// first.
func (c *chooser) best(pool []ranked) int {
	best := 0
	for i := range pool[1:] {
		if c.compare(pool[i+1], pool[best]) < 0 {
			best = i + 1
		}
	}
	return best
}

func (c *chooser) compare(a, b ranked) int {
	for l := range c.slots {
		if d := c.slots[l][a.at[l]] - c.slots[l][b.at[l]]; d != 0 {
			return d
		}
	}
	return b.rank - a.rank
}
