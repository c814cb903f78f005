package swarm

import (
	"math"
	"slices"
	"sync"
	"time"

	"skep/chunker/group"
)

// pace is how fast a holder answered of late: how long until the first bytes,
// how long each further one, and how far from the mean it was. All are smoothed
// as round-trip times are in TCP.
type pace struct {
	first   time.Duration
	each    float64 // nanoseconds a byte
	scatter time.Duration
}

// took takes one more answer into account: n bytes, the first of them after
// first, all of them after whole. An answer that was given up after that time
// counts as if it had come then.
func (p *pace) took(n int, first, whole time.Duration) {
	first = min(first, whole)
	each := float64(whole-first) / float64(max(n, 1))
	if *p == (pace{}) {
		*p = pace{max(first, 1), each, first / 2}
		return
	}
	off := whole - p.mean(n)
	p.scatter += (max(off, -off) - p.scatter) / 4
	p.first += (first - p.first) / 8
	p.each += (each - p.each) / 8
}

func (p *pace) mean(n int) time.Duration { return p.first + time.Duration(p.each*float64(n)) }

// by is when an answer of n bytes is there almost surely.
func (p *pace) by(n int) time.Duration { return p.mean(n) + 4*p.scatter }

// Bounds of how long one holder is waited for before another is asked beside
// it.
const (
	shortestHedge = 20 * time.Millisecond
	longestHedge  = 8 * time.Second
	maxPaces      = 8192
)

// measured takes note of how long a holder took for n bytes, or that they had not
// come after that time.
func (s *Swarm) measured(p group.PeerKey, n int, first, whole time.Duration, came bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.paces[p]
	if known == nil {
		if len(s.paces) >= maxPaces {
			clear(s.paces)
		}
		known = &pace{}
		s.paces[p] = known
	}
	known.took(n, first, whole)
	if came {
		s.all.took(n, first, whole)
	}
}

// expect is when an answer of n bytes should have come from a holder: by how it
// answered before, else by how all did, else by Config.Hedge.
func (s *Swarm) expect(p group.PeerKey, n int) time.Duration {
	s.mu.Lock()
	known := s.paces[p]
	if known != nil {
		defer s.mu.Unlock()
		return known.by(n)
	}
	s.mu.Unlock()
	return s.usually(n)
}

// line is what comes through our own line: how many bytes in about the last
// second, and the most that it ever was.
type line struct {
	mu    sync.Mutex // guards all below
	level float64
	most  float64
	at    time.Time
}

// lineMemory is how long what came counts, in the mean.
const lineMemory = time.Second

// came takes note of bytes that came just now.
func (l *line) came(n int, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.level = l.rest(now) + float64(n)
	l.at = now
	l.most = max(l.most, l.level)
}

// rest is what counts of what came. Caller holds mu.
func (l *line) rest(now time.Time) float64 {
	return l.level * math.Exp(-float64(now.Sub(l.at))/float64(lineMemory))
}

// leastBusy is the least that a full line brings, in bytes: what drips in from those who
// keep us waiting is no reason to wait for them.
const leastBusy = 16 << 10

// busy reports whether so much comes that the line may well be full: then those
// that are late may not be to blame.
func (l *line) busy(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.rest(now) >= max(l.most/2, leastBusy)
}

// usually is when an answer of n bytes should have come from anybody.
func (s *Swarm) usually(n int) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.all != (pace{}) {
		return s.all.by(n)
	}
	return s.c.Hedge
}

// mayScout lets one holder at a time, for so long, be asked to see whether our
// own line works.
func (s *Swarm) mayScout(wait time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.c.Now()
	if now.Before(s.scouted) {
		return false
	}
	s.scouted = now.Add(wait)
	return true
}

// usual is by when k of some holders have an answer of n bytes here almost
// surely, all of them if they are fewer.
func (s *Swarm) usual(holders []group.PeerKey, k, n int) time.Duration {
	var by []time.Duration
	for _, p := range holders {
		if !s.shuns(p) {
			by = append(by, s.expect(p, n))
		}
	}
	if len(by) == 0 {
		return s.c.Hedge
	}
	slices.Sort(by)
	return by[min(k, len(by))-1]
}

// hedge is how long to wait for one holder if others usually take so long.
func hedge(usual time.Duration) time.Duration {
	return min(max(usual, shortestHedge), longestHedge)
}
