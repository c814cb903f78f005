package plan

import (
	"math"

	"skep/chunker/erasure"
	"skep/net/peers"
)

const (
	// DefaultTarget is the durability target where none is set.
	DefaultTarget = 1e-6
	// Prior is the availability of a peer that was not measured yet.
	Prior = peers.Prior
	// MaxAvailability bounds what is believed of a measured availability: a
	// peer that was never seen away may still leave for good, and outages
	// strike several at once.
	MaxAvailability = 0.95
	// MaxK is the largest k: more would make reads touch more peers and save
	// little space.
	MaxK = 32
	// MaxExpansion is the most space, as a multiple of the content's, that is
	// spent to meet the target with a k below MaxK.
	MaxExpansion = 2.5
	// Tolerable is the loss that a plan keeps to where it cannot meet the
	// target: a drive that is away one time in ten is of no use.
	Tolerable = 0.1
)

// minAvailability keeps the arithmetic sane for peers that are never there.
const minAvailability = 0.01

// survival is the probability that an acknowledged shard is not lost for good
// before repair fills the slots that were not acknowledged.
const survival = 0.98

// Peer is what the plan needs to know of a peer that has room and is allowed.
type Peer struct {
	Availability float64 // 0 … 1; 0 stands for not measured
	Domain       string  // peers of one domain fail together; "" is a domain of its own
}

// Requirement is what the drive asks for. The zero value asks for the
// defaults.
type Requirement struct {
	Target float64 // 0 stands for DefaultTarget
	Spares int     // peers left to repair onto; 0 stands for a tenth of them, at least 1
}

// Choice is how packs of one class are coded.
type Choice struct {
	Class  erasure.Class
	Coding erasure.Coding
	Enough int     // acknowledged slots with which a pack counts as out
	Loss   float64 // probability that at one instant fewer than k are reachable
}

// Expansion is how much space is used for each byte of the pack.
func (c Choice) Expansion() float64 { return float64(c.Coding.N) / float64(c.Coding.K) }

// Plan is the outcome for one swarm. It is comparable.
type Plan struct {
	Choices [erasure.MaxClass - erasure.MinClass + 1]Choice // by class, the smallest first
	Target  float64

	Peers        int     // how many were planned with
	Spares       int     // how many of them no group needs
	Availability float64 // mean, as it was planned with
	Domains      int     // that the peers are in
	DomainSafe   bool    // a pack survives the loss of any one domain
	Missing      int     // how many more such peers would meet the target; 0 if it is met or no number would
}

// For returns the choice for a class. The class must be valid. Without any
// peer, the choice is the zero Choice, whose N is 0.
func (p Plan) For(c erasure.Class) Choice { return p.Choices[c-erasure.MinClass] }

// Loss is the largest loss of all classes, 1 without any peer.
func (p Plan) Loss() float64 {
	if p.Peers == 0 {
		return 1
	}
	return p.For(erasure.MaxClass).Loss
}

// Met reports whether the plan meets its target.
func (p Plan) Met() bool { return p.Loss() <= p.Target }

// New plans for a swarm of these peers. The order of the peers does not
// matter.
func New(r Requirement, eligible []Peer) Plan {
	s := survey(r, eligible)
	p := Plan{
		Target: s.target, Peers: len(eligible),
		Availability: s.availability, Domains: len(s.domains),
	}
	if len(eligible) == 0 {
		return p
	}
	k, n := s.choose()
	p.Spares = len(eligible) - n
	p.DomainSafe = s.domainSafe(k, n)
	for i := range p.Choices {
		p.Choices[i] = s.choice(erasure.MinClass+erasure.Class(i), k, n)
	}
	if !p.Met() {
		p.Missing = s.missing()
	}
	return p
}

// swarm is what New works with.
type swarm struct {
	requirement  Requirement
	target       float64
	peers        int
	slots        int // the most that a group may have
	availability float64
	domains      []int // sizes of the domains
}

func survey(r Requirement, eligible []Peer) swarm {
	s := swarm{requirement: r, target: r.Target, peers: len(eligible)}
	if s.target <= 0 {
		s.target = DefaultTarget
	}
	s.slots = min(erasure.MaxShards, len(eligible)-sparesOf(r, len(eligible)))
	sizes := map[string]int{}
	sum := 0.0
	for _, p := range eligible {
		sum += believed(p.Availability)
		if p.Domain == "" {
			s.domains = append(s.domains, 1)
			continue
		}
		sizes[p.Domain]++
	}
	for _, n := range sizes {
		s.domains = append(s.domains, n)
	}
	if len(eligible) > 0 {
		s.availability = sum / float64(len(eligible))
	}
	return s
}

// believed is the availability that is planned with for a measured one.
func believed(a float64) float64 {
	if !(a > 0) { // not measured, or not a number
		return Prior
	}
	return min(max(a, minAvailability), MaxAvailability)
}

// sparesOf is how many peers are left out. One or two peers have no spare, or
// there would be no redundancy at all.
func sparesOf(r Requirement, count int) int {
	spares := r.Spares
	if spares <= 0 {
		spares = max(1, (count+9)/10)
	}
	return max(0, min(spares, count-2))
}

// choose returns k and n for the largest class: the first coding that meets
// the target, better one that also survives the loss of any one domain.
func (s swarm) choose() (k, n int) {
	for _, safe := range []bool{true, false} {
		for k := MaxK; k >= 1; k-- {
			if n, ok := s.meets(k, safe); ok {
				return k, n
			}
		}
	}
	return s.best()
}

// meets returns the fewest slots with which k meets the target, if there are
// so many and they are not too dear; with safe, such that the loss of any one
// domain is survived too.
func (s swarm) meets(k int, safe bool) (n int, ok bool) {
	n, ok = slotsFor(k, s.slots, s.availability, s.target)
	for ; ok && safe && !s.domainSafe(k, n); n++ {
		ok = n < s.slots
	}
	return n, ok && (k == MaxK || float64(n) <= MaxExpansion*float64(k))
}

// best returns the coding for a swarm in which nothing meets the target: all
// slots, and half of them as k; fewer where that saves a domain's loss at
// little cost, or where peers are seldom there.
func (s swarm) best() (k, n int) {
	n = s.slots
	half := min(MaxK, (n+1)/2)
	for k = half; float64(n) <= MaxExpansion*float64(k); k-- {
		if s.domainSafe(k, n) && lossOf(k, n, s.availability) <= Tolerable {
			return k, n
		}
	}
	for k = half; k > 1 && lossOf(k, n, s.availability) > Tolerable; k-- {
	}
	return k, n
}

// domainSafe reports whether k of n slots, spread over the domains as widely
// as they allow, survive the loss of the domain with the most of them.
func (s swarm) domainSafe(k, n int) bool { return s.largestShare(n) <= n-k }

// largestShare is how many of n slots the fullest domain gets when they are
// spread as widely as possible.
func (s swarm) largestShare(n int) int {
	for share := 1; share < n; share++ {
		room := 0
		for _, size := range s.domains {
			room += min(size, share)
		}
		if room >= n {
			return share
		}
	}
	return n
}

// choice is the coding of a class, given k and n of the largest. A small pack
// has fewer data shards, but as many parity shards: then it survives as many
// losses, and has fewer holders to lose.
func (s swarm) choice(c erasure.Class, k, n int) Choice {
	parity := n - k
	k = min(k, c.MaxK())
	n = k + parity
	return Choice{
		Class:  c,
		Coding: erasure.NewCoding(k, n),
		Enough: enough(k, n, s.target),
		Loss:   lossOf(k, n, s.availability),
	}
}

// Enough is how many acknowledged slots make a pack count as out.
func Enough(c erasure.Coding) int { return enough(int(c.K), int(c.N), DefaultTarget) }

// enough is how many acknowledged slots make a pack count as out: so many that
// fewer than k are lost for good, to the target, before the others are filled;
// where even n are not, half of the parity. A quarter of the parity never
// counts: what meets the target at one instant is nearly all n, and then one
// holder that is away would hold back every commit, though its slot is filled
// as soon as it is back or replaced.
func enough(k, n int, target float64) int {
	parity := n - k
	a, ok := slotsFor(k, n, survival, target)
	if !ok {
		a = k + parity/2
	}
	return min(a, n-(parity+3)/4)
}

// missing is how many more peers of the same availability, each in a domain
// of its own, would meet the target; 0 if no number would.
func (s swarm) missing() int {
	need := math.MaxInt
	for k := 1; k <= MaxK; k++ {
		n, ok := slotsFor(k, erasure.MaxShards, s.availability, s.target)
		if ok && (k == MaxK || float64(n) <= MaxExpansion*float64(k)) {
			need = min(need, n)
		}
	}
	if need == math.MaxInt {
		return 0
	}
	total := need
	for total-sparesOf(s.requirement, total) < need {
		total++
	}
	return max(1, total-s.peers)
}
