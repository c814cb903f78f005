package holder

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"skep/chunker/group"
)

// gate lets so many exchanges go on at once, in total and for each peer.
type gate struct {
	total, each int

	mu     sync.Mutex // guards the fields below
	inside map[*pass]bool
	byPeer map[group.PeerKey]int
}

// pass is one exchange as gates see it.
type pass struct {
	from  group.PeerKey
	began time.Time
	moved atomic.Int64 // bytes of it that have gone in or out
	end   func()       // ends it from outside
}

func newGate(total, each int) *gate {
	return &gate{total: total, each: each, inside: map[*pass]bool{}, byPeer: map[group.PeerKey]int{}}
}

// few is how many exchanges a peer may have inside to be let in when the gate is
// nearly full: the last quarter is for those who ask for little.
const few = 2

// enter reports whether an exchange may go on; leave ends it. Who finds the
// gate full makes the slowest of those inside end, if that is slow: to keep a
// gate full, one has to move bytes, not just to be there.
func (g *gate) enter(p *pass) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.byPeer[p.from] >= g.each {
		return false
	}
	most := g.total
	if g.byPeer[p.from] >= few {
		most -= g.total / 4
	}
	if len(g.inside) >= most {
		g.endSlowest(p.began)
		return false
	}
	g.inside[p] = true
	g.byPeer[p.from]++
	return true
}

func (g *gate) leave(p *pass) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.inside, p)
	if g.byPeer[p.from]--; g.byPeer[p.from] == 0 {
		delete(g.byPeer, p.from)
	}
}

// hurry ends the slowest exchange, if that is slow, for the sake of others.
func (g *gate) hurry(now time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.endSlowest(now)
}

func (g *gate) endSlowest(now time.Time) {
	if s := g.slowest(now); s != nil {
		s.end()
	}
}

// busy reports whether anything goes on.
func (g *gate) busy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.inside) > 0
}

// An exchange is slow when it has gone on for slowAfter at less than slowRate
// bytes a second.
const (
	slowAfter = 10 * time.Second
	slowRate  = 32 << 10
)

// slowest returns the slow exchange that moves least, or nil.
func (g *gate) slowest(now time.Time) *pass {
	var worst *pass
	least := float64(slowRate)
	for p := range g.inside {
		age := now.Sub(p.began)
		if rate := float64(p.moved.Load()) / age.Seconds(); age >= slowAfter && rate < least {
			worst, least = p, rate
		}
	}
	return worst
}

// metered counts for a pass what goes through a stream.
type metered struct {
	io.ReadWriter
	pass *pass
}

// Read implements io.Reader.
func (m *metered) Read(b []byte) (int, error) {
	n, err := m.ReadWriter.Read(b)
	m.pass.moved.Add(int64(n))
	return n, err
}

// Write implements io.Writer.
func (m *metered) Write(b []byte) (int, error) {
	n, err := m.ReadWriter.Write(b)
	m.pass.moved.Add(int64(n))
	return n, err
}
