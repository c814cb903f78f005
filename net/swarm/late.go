package swarm

import (
	"time"

	"skep/chunker/erasure"
)

// atFirst is how many to ask at first: the holder of the piece alone, or k if
// that failed lately or any are welcome.
func (g *gathering) atFirst() int {
	if !g.lined {
		return 1
	}
	return int(g.m.Coding.K)
}

// wanting is how many more to ask so that k could complete the piece without
// those that are late, and without the holder of the piece itself, which may
// become so.
func (g *gathering) wanting() int {
	n := int(g.m.Coding.K) - len(g.have)
	for src, f := range g.flying {
		if !f.late && src.slot != g.p.slot {
			n--
		}
	}
	return max(0, n)
}

// next is how long from now to look who is late.
func (g *gathering) next() time.Duration {
	now, next := g.s.c.Now(), longestHedge
	for _, f := range g.flying {
		if f.late {
			next = min(next, g.wait()/2)
		} else {
			next = min(next, f.due.Sub(now))
		}
	}
	return max(0, next)
}

// wait is how long one holder is waited for before another is asked beside it.
func (g *gathering) wait() time.Duration { return hedge(g.usual) }

// muteTime is how long somebody may say nothing at all while there are others to
// be asked: then he is given up, to make room for them.
const muteTime = 5 * time.Second

// beside says how many more to ask because somebody is late: as many as can do
// without him, and twice as many each time until somebody answers. While our own
// line is busy that may be the reason, and everything asked for more would make it
// worse: then one goes ahead for all reads, to see, and is waited for longer each
// time.
func (g *gathering) beside() int {
	g.lineUp()
	g.usual = g.s.usual(g.others(), int(g.m.Coding.K), g.to-g.from)
	now := g.s.c.Now()
	busy, late := g.s.line.busy(now), false
	for _, f := range g.flying {
		f.due = later(f.due, f.begin.Add(g.wait()))
		f.late = !now.Before(f.due) && !g.flows(f, now)
		late = late || f.late
		if f.late && !busy && len(g.queue) > 0 && f.got.Load() == 0 && now.Sub(f.begin) >= muteTime {
			f.mute = true
			f.drop()
		}
	}
	switch {
	case !late || len(g.queue) == 0:
		return 0
	case !busy:
		g.rounds++
		return g.wanting() << min(g.rounds-1, 8)
	case g.wanting() > 0 && g.s.mayScout(g.patience(g.scouts+1)):
		g.scouts++
		return 1
	}
	return 0
}

// patience is how long one is waited for that was asked after so many scouts.
func (g *gathering) patience(scouts int) time.Duration {
	return g.wait() * time.Duration(max(1, scouts))
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// mostFlow is after how many times as long as others take no answer is waited for any
// more, however little is left of it.
const mostFlow = 5

// flows puts off when an answer is due that is arriving, and will be here
// sooner than others that were asked now. One of which nothing comes any more does not
// arrive: who has sent nearly all could keep everybody waiting.
func (g *gathering) flows(f *flight, now time.Time) bool {
	got := int(f.got.Load())
	gone := now.Sub(f.begin)
	still := gone - time.Duration(f.last.Load())
	if got == 0 || still > g.wait() || gone > mostFlow*g.wait() {
		return false
	}
	all := erasure.SliceSize(g.m.ShardSize(), g.from, g.to-g.from)
	left := time.Duration(float64(gone) * float64(max(0, all-got)) / float64(got))
	if left > g.usual {
		return false
	}
	f.due = now.Add(max(left, shortestHedge))
	return true
}

// overtaken has those asked last for a while that were late and yet slower than
// all that was needed without them.
func (g *gathering) overtaken() {
	now := g.s.c.Now()
	for src, f := range g.flying {
		if !f.late {
			continue
		}
		g.s.shun(src.peer)
		first := time.Duration(f.first.Load())
		if first == 0 {
			first = now.Sub(f.begin)
		}
		g.s.measured(src.peer, g.to-g.from, first, now.Sub(f.begin), false)
	}
}
