package health

import (
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/peers"
)

// Health is how a pack is.
type Health uint8

// The healths.
const (
	Healthy Health = iota + 1
	Injured        // so many shards are missing that they are to be rebuilt
	Lost           // fewer than k shards are left, and this device has no copy
)

var healthNames = [...]string{"", "healthy", "injured", "lost"}

// String is the health in one word.
func (h Health) String() string {
	if h > 0 && int(h) < len(healthNames) {
		return healthNames[h]
	}
	return "invalid"
}

// PackHealth is how one pack is and why.
type PackHealth struct {
	Health    Health
	Live      int       // shards believed to be there
	Reachable int       // of these, with holders that answer
	Unasked   int       // of those live, with holders that were not asked yet
	AtRisk    bool      // healthy, but not if the holders that are silent now stay away
	OnlyHere  bool      // fewer than k shards are left, and this device has a copy
	Away      bool      // not lost, but fewer than k holders answer now, and this device has no copy
	Proven    time.Time // since when k of its holders have passed an audit; zero if they have not
}

// Pack returns how a pack is. It reports false for one that is not wanted or
// not known.
func (s *State) Pack(id group.ID, number uint16, now time.Time) (PackHealth, bool) {
	g, ok := s.groups[id]
	if !ok || !g.Wanted.Has(number) {
		return PackHealth{}, false
	}
	s.recount(g, now)
	p := g.pack(number)
	p.Proven = g.proven(number)
	return p, true
}

func (g *keptGroup) pack(n uint16) PackHealth {
	p := PackHealth{Live: int(g.live[n]), Reachable: int(g.reachable[n]), Unasked: int(g.unasked[n])}
	p.Health = g.healthOf(p.Live, n)
	p.OnlyHere = p.Health != Lost && p.Live < int(g.Coding.K)
	p.AtRisk = p.Health == Healthy && g.healthOf(p.Reachable+p.Unasked, n) != Healthy
	p.Away = p.Health != Lost && g.healthOf(p.Live-int(g.silent[n]), n) == Lost
	return p
}

// proven is the time since when k holders of a pack have passed an audit.
func (g *keptGroup) proven(n uint16) time.Time {
	var times []time.Time
	for i, k := range g.kept {
		held := g.believed(i)
		if k.holder != nil && held.Has(n) && !k.holder.proved.IsZero() {
			times = append(times, k.holder.proved)
		}
	}
	if len(times) < int(g.Coding.K) {
		return time.Time{}
	}
	slices.SortFunc(times, func(a, b time.Time) int { return b.Compare(a) })
	return times[g.Coding.K-1]
}

func (g *keptGroup) healthOf(shards int, n uint16) Health {
	switch {
	case shards < int(g.Coding.K) && !g.Local.Has(n):
		return Lost
	case int(g.Coding.N)-shards >= g.lazy():
		return Injured
	}
	return Healthy
}

// Report is the sum of everything, for status.
type Report struct {
	Packs    int // wanted, and not idle
	Healthy  int
	Injured  int
	Lost     int
	AtRisk   int // of the healthy ones
	Away     int // of those that are not lost: not to be read now
	OnlyHere int // of the injured ones: this device has them, as fewer than k shards are left
	Missing  int // shards to be rebuilt, of all packs
	Unasked  int // packs of which some holders were not asked yet
	Holders  int // that are not dead
	Asked    int // of these, asked for all that they are believed to have

	AsOf time.Time // since when every holder that is there was asked; those not asked yet apart

	Peers   map[peers.State]int // holders, by state
	Repairs int                 // under way
	Paused  bool
}

// BelowTarget is how many packs have fewer shards than they should.
func (r Report) BelowTarget() int { return r.Injured + r.Lost }

// Report counts all packs and holders.
func (s *State) Report(now time.Time) Report {
	r := Report{Peers: map[peers.State]int{}, Repairs: s.repairs, Paused: s.paused}
	for _, id := range s.groupOrder {
		g := s.groups[id]
		s.recount(g, now)
		each(g.missed(), func(n uint16) { r.add(g.pack(n), int(g.Coding.N)) })
		for i, k := range g.kept {
			if g.holderState(i) != peers.Dead && !k.stated.IsZero() && (r.AsOf.IsZero() || k.stated.Before(r.AsOf)) {
				r.AsOf = k.stated
			}
		}
	}
	for _, p := range s.peers {
		if len(p.slots) == 0 {
			continue
		}
		r.Peers[p.state]++
		if p.state != peers.Dead {
			r.Holders++
			if !slices.ContainsFunc(p.slots, func(at slotRef) bool { return at.group.isPresumed(at.slot) }) {
				r.Asked++
			}
		}
	}
	return r
}

// LostPacks returns the packs that are Lost and not idle, by group.
func (s *State) LostPacks(now time.Time) map[group.ID]group.Bitmap { return s.withTooFew(now, false) }

// OnlyHere returns the packs that are OnlyHere and not idle, by group.
func (s *State) OnlyHere(now time.Time) map[group.ID]group.Bitmap { return s.withTooFew(now, true) }

// withTooFew returns the packs of which fewer than k shards are left, those of which this
// device has a copy, or the others.
func (s *State) withTooFew(now time.Time, here bool) map[group.ID]group.Bitmap {
	out := map[group.ID]group.Bitmap{}
	for _, id := range s.groupOrder {
		g := s.groups[id]
		s.recount(g, now)
		var few group.Bitmap
		each(g.missed(), func(n uint16) {
			if g.live[n] < g.Coding.K && g.Local.Has(n) == here {
				few.Add(n)
			}
		})
		if few != (group.Bitmap{}) {
			out[id] = few
		}
	}
	return out
}

// missed are the packs that somebody would miss.
func (g *keptGroup) missed() group.Bitmap { return g.Wanted.Without(g.Idle) }

func (r *Report) add(p PackHealth, n int) {
	r.Packs++
	r.Missing += n - p.Live
	if p.Unasked > 0 {
		r.Unasked++
	}
	switch p.Health {
	case Healthy:
		r.Healthy++
	case Injured:
		r.Injured++
	case Lost:
		r.Lost++
	}
	if p.AtRisk {
		r.AtRisk++
	}
	if p.Away {
		r.Away++
	}
	if p.OnlyHere {
		r.OnlyHere++
	}
}
