package plan

import (
	"fmt"
	"math"
	"math/big"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"skep/chunker/erasure"
)

// peersOf returns peers of one availability, each in a domain of its own.
func peersOf(n int, availability float64) []Peer {
	out := make([]Peer, n)
	for i := range out {
		out[i] = Peer{Availability: availability, Domain: fmt.Sprint("household ", i)}
	}
	return out
}

// inDomains returns peers spread over some domains in turn.
func inDomains(n, domains int) []Peer {
	out := peersOf(n, 0)
	for i := range out {
		out[i].Domain = fmt.Sprint("operator ", i%domains)
	}
	return out
}

func TestCodings(t *testing.T) {
	for _, c := range []struct {
		name   string
		peers  []Peer
		want   string
		met    bool
		enough int
	}{
		{"large swarm", peersOf(500, 0.85), "32 of 55", true, 39},
		{"large swarm, not measured", peersOf(500, 0), "32 of 55", true, 39},
		{"large swarm, not a number", peersOf(500, math.NaN()), "32 of 55", true, 39},
		{"large swarm of laptops", peersOf(500, 0.70), "32 of 73", true, 39},
		{"large swarm, seldom there", peersOf(500, 0.40), "32 of 128", false, 39},
		{"large swarm, always there", peersOf(500, 1), "32 of 43", true, 39},
		{"just enough", peersOf(62, 0.85), "32 of 55", true, 39},
		{"fewer", peersOf(40, 0.85), "19 of 36", true, 25},
		{"no peer", nil, "0 of 0", false, 0},
		{"one", peersOf(1, 0.85), "1 of 1", false, 1},
		{"two", peersOf(2, 0.85), "1 of 2", false, 1},
		{"three", peersOf(3, 0.85), "1 of 2", false, 1},
		{"four", peersOf(4, 0.85), "2 of 3", false, 2},
		{"five", peersOf(5, 0.85), "2 of 4", false, 3},
		{"six", peersOf(6, 0.85), "3 of 5", false, 4},
		{"seven", peersOf(7, 0.85), "3 of 6", false, 4},
		{"eight", peersOf(8, 0.85), "4 of 7", false, 5},
		{"eight, always there", peersOf(8, 1), "4 of 7", false, 5},
		{"eight on one loopback", inDomains(8, 1), "4 of 7", false, 5},
		{"eight in two households", inDomains(8, 2), "3 of 7", false, 6},
		{"eight, seldom there", peersOf(8, 0.5), "2 of 7", false, 5},
		{"twenty", peersOf(20, 0.85), "9 of 18", false, 14},
		{"two operators", inDomains(500, 2), "32 of 64", true, 39},
		{"one operator", inDomains(500, 1), "32 of 55", true, 39},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := New(Requirement{}, c.peers)
			big := p.For(erasure.MaxClass)
			if big.Coding.String() != c.want || p.Met() != c.met || big.Enough != c.enough {
				t.Errorf("got %v, met %v, enough %d\nwant %s, met %v, enough %d\n%s",
					big.Coding, p.Met(), big.Enough, c.want, c.met, c.enough, strings.Join(p.Shortfall(0), "\n"))
			}
		})
	}
}

func TestSmallClassesOfALargeSwarm(t *testing.T) {
	p := New(Requirement{}, peersOf(500, 0.85))
	want := map[string]string{
		"64 KiB": "1 of 24", "128 KiB": "2 of 25", "256 KiB": "4 of 27", "512 KiB": "8 of 31",
		"1 MiB": "16 of 39", "2 MiB": "32 of 55", "64 MiB": "32 of 55",
	}
	for c := erasure.MinClass; c <= erasure.MaxClass; c++ {
		if w, ok := want[c.String()]; ok && p.For(c).Coding.String() != w {
			t.Errorf("%v: %v, want %s", c, p.For(c).Coding, w)
		}
	}
}

// drawPeers draws a swarm of any size, availability and number of domains.
func drawPeers(t *rapid.T, most int) []Peer {
	n := rapid.IntRange(1, most).Draw(t, "peers")
	domains := rapid.IntRange(1, most).Draw(t, "domains")
	a := rapid.Float64Range(0.01, 1).Draw(t, "availability")
	peers := make([]Peer, n)
	for i := range peers {
		peers[i] = Peer{
			Availability: a * rapid.Float64Range(0.8, 1).Draw(t, "part"),
			Domain:       fmt.Sprint(rapid.IntRange(1, domains).Draw(t, "domain")),
		}
	}
	return peers
}

func TestEveryPlanHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := drawPeers(t, 160)
		p := New(Requirement{Target: rapid.SampledFrom([]float64{0, 1e-3, 1e-9}).Draw(t, "target")}, peers)
		big := p.For(erasure.MaxClass)
		if p.Spares < 0 || p.Spares+int(big.Coding.N) != len(peers) {
			t.Fatalf("%d spares beside %v of %d peers", p.Spares, big.Coding, len(peers))
		}
		if len(peers) > 2 && p.Spares < (len(peers)+9)/10 {
			t.Fatalf("%d spares of %d peers", p.Spares, len(peers))
		}
		for c := erasure.MinClass; c <= erasure.MaxClass; c++ {
			checkChoice(t, p.For(c), big, c)
		}
		whole := p.Met() && p.DomainSafe && p.Spares > 0
		if whole != (len(p.Shortfall(0)) == 0) || p.Met() && p.Missing != 0 {
			t.Fatalf("met %v, missing %d, %q", p.Met(), p.Missing, p.Shortfall(0))
		}
	})
}

func checkChoice(t *rapid.T, ch, largest Choice, c erasure.Class) {
	k, n := int(ch.Coding.K), int(ch.Coding.N)
	switch {
	case ch.Class != c || !ch.Coding.Valid(c):
		t.Fatalf("%v: %v is not valid", c, ch.Coding)
	case ch.Enough < k || ch.Enough > n || n > k && ch.Enough == n:
		t.Fatalf("%v: %d slots are enough for %v", c, ch.Enough, ch.Coding)
	case n-k < int(largest.Coding.N-largest.Coding.K):
		t.Fatalf("%v survives fewer losses than the largest class", c)
	case ch.Loss > largest.Loss*(1+1e-9):
		t.Fatalf("%v: loss %g, of the largest class %g", c, ch.Loss, largest.Loss)
	}
}

// level is the rung that a plan reaches: the target, a tolerable loss, or just
// what it can.
func level(p Plan) float64 {
	switch {
	case p.Met():
		return p.Target
	case p.Loss() <= Tolerable:
		return Tolerable
	}
	return p.Loss()
}

func TestMoreAvailabilityNeverLowersDurability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := drawPeers(t, 100)
		before := New(Requirement{}, peers)
		for i := range peers {
			peers[i].Availability += rapid.Float64Range(0, 1-peers[i].Availability).Draw(t, "more")
		}
		if after := New(Requirement{}, peers); level(after) > level(before)*(1+1e-9) {
			t.Fatalf("%v at %.3f: %g; %v at %.3f: %g", before.For(26).Coding, before.Availability, before.Loss(),
				after.For(26).Coding, after.Availability, after.Loss())
		}
	})
}

func TestMorePeersNeverLowerDurability(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.Float64Range(0.05, 1).Draw(t, "availability")
		n := rapid.IntRange(1, 150).Draw(t, "peers")
		m := rapid.IntRange(n, 160).Draw(t, "more")
		before, after := New(Requirement{}, peersOf(n, a)), New(Requirement{}, peersOf(m, a))
		if level(after) > level(before)*(1+1e-9) {
			t.Fatalf("%d peers: %v %g; %d peers: %v %g", n, before.For(26).Coding, before.Loss(), m, after.For(26).Coding, after.Loss())
		}
	})
}

func TestMissingPeersWouldMeetTheTarget(t *testing.T) {
	for n := 1; n <= 60; n++ {
		for _, a := range []float64{0.5, 0.7, 0.85, 0.95} {
			p := New(Requirement{}, peersOf(n, a))
			if p.Missing == 0 {
				continue
			}
			if !New(Requirement{}, peersOf(n+p.Missing, a)).Met() {
				t.Errorf("%d peers at %g: %d more do not meet the target", n, a, p.Missing)
			}
			if p.Missing > 1 && New(Requirement{}, peersOf(n+p.Missing-1, a)).Met() {
				t.Errorf("%d peers at %g: fewer than %d more meet the target", n, a, p.Missing)
			}
		}
	}
}

func TestSparesAreLeft(t *testing.T) {
	if p := New(Requirement{Spares: 5}, peersOf(12, 0.85)); p.For(erasure.MaxClass).Coding.N != 7 {
		t.Errorf("12 peers, 5 to be left: %v", p.For(erasure.MaxClass).Coding)
	}
	if p := New(Requirement{Spares: 50}, peersOf(12, 0.85)); p.For(erasure.MaxClass).Coding.N != 2 {
		t.Errorf("12 peers, 50 to be left: %v", p.For(erasure.MaxClass).Coding)
	}
}

func TestLossIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 10).Draw(t, "availability")
		k := rapid.IntRange(0, len(ps)+1).Draw(t, "k")
		want := 0.0
		for set := range 1 << len(ps) {
			there, prob := 0, 1.0
			for i, p := range ps {
				if set&(1<<i) != 0 {
					there, prob = there+1, prob*p
				} else {
					prob *= 1 - p
				}
			}
			if there < k {
				want += prob
			}
		}
		if got := Loss(k, ps); math.Abs(got-want) > 1e-12 {
			t.Fatalf("%g, want %g", got, want)
		}
	})
}

// The tail is right in relative terms too, as exact fractions show.
func TestLossIsExactFarOut(t *testing.T) {
	for _, c := range []struct{ k, n int }{{32, 55}, {32, 73}, {1, 24}, {32, 128}, {4, 7}} {
		p := big.NewRat(7, 8)
		got, _ := new(big.Rat).SetString(fmt.Sprintf("%.20g", lossOf(c.k, c.n, 7.0/8)))
		want := exactLoss(c.k, c.n, p)
		ratio, _ := new(big.Rat).Quo(got, want).Float64()
		if math.Abs(ratio-1) > 1e-12 {
			t.Errorf("%d of %d: off by %g", c.k, c.n, ratio-1)
		}
	}
}

func exactLoss(k, n int, p *big.Rat) *big.Rat {
	q := new(big.Rat).Sub(big.NewRat(1, 1), p)
	sum := new(big.Rat)
	for i := range k {
		term := new(big.Rat).SetInt(new(big.Int).Binomial(int64(n), int64(i)))
		for j := range n {
			if j < i {
				term.Mul(term, p)
			} else {
				term.Mul(term, q)
			}
		}
		sum.Add(sum, term)
	}
	return sum
}

// A mean is planned with because holders that differ are together no worse.
func TestMixedHoldersAreNoWorseThanTheirMean(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Float64Range(0.5, 1), 2, 40).Draw(t, "availability")
		mean := 0.0
		for _, p := range ps {
			mean += p / float64(len(ps))
		}
		k := rapid.IntRange(1, int(mean*float64(len(ps)))).Draw(t, "k") // below the mean, as plans are
		if got, bound := Loss(k, ps), lossOf(k, len(ps), mean); got > bound*(1+1e-9)+1e-15 {
			t.Fatalf("%d of %d: %g, of the mean %g", k, len(ps), got, bound)
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		peers   []Peer
		summary string
		short   []string
	}{
		{nil, "no peer to store with",
			[]string{"No peer with room is known: nothing leaves this device until there is one."}},
		{peersOf(2, 0.85), "1 of 2, 2.00 bytes stored for each byte, survives the loss of any 1 holder", []string{
			"At any moment the drive is out of the swarm's reach with a chance of 1 in 44; the target is 1 in 1,000,000. About 21 more peers (there 85 % of the time) would meet it.",
			"There is no spare peer: a shard that is lost cannot be rebuilt elsewhere."}},
		{inDomains(8, 1), "4 of 7, 1.75 bytes stored for each byte, survives the loss of any 3 holders", []string{
			"At any moment the drive is out of the swarm's reach with a chance of 1 in 83; the target is 1 in 1,000,000. About 15 more peers (there 85 % of the time) would meet it.",
			"As far as is known, all peers are in one place, such as one machine or network: what fails one may fail all."}},
		{peersOf(100, 0.85), "32 of 55, 1.72 bytes stored for each byte, survives the loss of any 23 holders", nil},
	} {
		p := New(Requirement{}, c.peers)
		if p.Summary() != c.summary {
			t.Errorf("got  %q\nwant %q", p.Summary(), c.summary)
		}
		if got, want := strings.Join(p.Shortfall(0), "\n"), strings.Join(c.short, "\n"); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
	if s := strings.Join(New(Requirement{}, peersOf(200, 0.2)).Shortfall(0), " "); !strings.Contains(s, "steadier") {
		t.Errorf("seldom there: %q", s)
	}
	for p, want := range map[float64]string{0: "less than 1 in 1e+300", 1: "1 in 1.0", 0.25: "1 in 4.0",
		0.01: "1 in 100", 1e-3: "1 in 1,000", 1e-20: "1 in 1e+20"} {
		if odds(p) != want {
			t.Errorf("odds(%g) = %q, want %q", p, odds(p), want)
		}
	}
}

func BenchmarkNew(b *testing.B) {
	peers := peersOf(1000, 0.85)
	for b.Loop() {
		New(Requirement{}, peers)
	}
}
