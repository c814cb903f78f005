package swarm

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"skep/chunker/group"
	"skep/net/client"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/net/wire"
)

// Greeter says hello to peers; *client.Client is one.
type Greeter interface {
	Hello(ctx context.Context, p group.PeerKey) (wire.Hello, error)
}

// Survey keeps the directory of peers up to date: it says hello to everybody
// that this host is connected to or that the DHT's routing table has, at once
// when they are new and every so often afterwards.
type Survey struct {
	Host    host.Host
	Greeter Greeter
	Peers   *peers.Directory
	Table   func() []peer.ID // more peers; nil for none
	Every   time.Duration    // between two greetings of one peer
	Now     func() time.Time
	Log     *slog.Logger

	mu   sync.Mutex // guards next, and the making of room
	next map[group.PeerKey]greeting
	room chan struct{} // for so many greetings at once, of all rounds
}

// greeting says when a peer is to be greeted next, and how often in a row it
// did not answer.
type greeting struct {
	at    time.Time
	fails int
	begun bool // it is under way
	soon  bool // another one is wanted since it began
}

// firstRetry is how long after a greeting without answer the next one is; it
// doubles, up to Every.
const firstRetry = time.Second

// At most so many are greeted at once, beside those that are asked what they hold: a client
// has more calls under way, so that who takes a greeting and says nothing keeps nobody from
// reading.
const (
	greetTimeout = 10 * time.Second
	greetAtOnce  = 16
)

// Soon has peers greeted with the next round: what they said last is not so any more.
func (s *Survey) Soon(keys []group.PeerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if g, known := s.next[k]; known {
			g.at, g.soon = time.Time{}, g.begun
			s.next[k] = g
		}
	}
}

// Run greets until ctx ends. A peer that keeps us waiting keeps nobody else, a few hundred
// keep others for some minutes.
func (s *Survey) Run(ctx context.Context) error {
	var rounds sync.WaitGroup
	defer rounds.Wait()
	tick := time.NewTicker(min(time.Second, s.Every))
	defer tick.Stop()
	for {
		rounds.Go(func() { s.Round(ctx) })
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Round greets everybody that is due, and waits for the answers; those that are silent
// when most have answered, of all that are known, not for long, if Linger says so.
func (s *Survey) Round(ctx context.Context) {
	ctx, leave := lingering(ctx)
	due, well := s.due()
	all := int64(len(due) + well)
	var answered atomic.Int64
	if answered.Store(int64(well)); 2*int64(well) > all {
		leave.soon()
	}
	var wg sync.WaitGroup
	for i, p := range due {
		if !s.enter(ctx) {
			s.putOff(due[i:])
			break
		}
		wg.Go(func() {
			defer func() { <-s.room }()
			if s.greet(ctx, p) && 2*answered.Add(1) > all {
				leave.soon()
			}
		})
	}
	wg.Wait()
}

// enter waits for room for one more greeting. It returns false if ctx ended first.
func (s *Survey) enter(ctx context.Context) bool {
	select {
	case s.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	if ctx.Err() != nil {
		<-s.room
		return false
	}
	return true
}

// due lists whom to greet now: the new ones, and those not greeted for long; those first
// to whom there is a connection.
// They are not due again before their greeting has ended. Of those that are not due, well
// have answered the last one.
func (s *Survey) due() (due []group.PeerKey, well int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.next == nil {
		s.next, s.room = map[group.PeerKey]greeting{}, make(chan struct{}, greetAtOnce)
	}
	now := s.Now()
	seen := map[group.PeerKey]bool{}
	add := func(k group.PeerKey) {
		switch g := s.next[k]; {
		case seen[k] || g.begun:
		case !now.Before(g.at):
			due = append(due, k)
			g.begun = true
			s.next[k] = g
		case g.fails == 0:
			well++
		}
		seen[k] = true
	}
	ids := s.Host.Network().Peers()
	if s.Table != nil {
		ids = append(ids, s.Table()...)
	}
	for _, id := range ids {
		if k, err := skephost.Key(id); err == nil && id != s.Host.ID() {
			add(k)
		}
	}
	for _, p := range s.Peers.List() {
		add(p.Key)
	}
	for k := range s.next {
		if !seen[k] {
			delete(s.next, k)
		}
	}
	return due, well
}

func (s *Survey) greet(ctx context.Context, p group.PeerKey) (answered bool) {
	timed, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	begin := s.Now()
	hello, err := s.Greeter.Hello(timed, p)
	s.plan(p, err == nil, errors.Is(err, client.ErrWaited))
	if err != nil {
		s.Log.Debug("a greeting was not answered", "peer", p, "err", err)
		late := errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil && !errors.Is(err, client.ErrWaited)
		if late || errors.Is(err, client.ErrUnreachable) {
			s.Peers.Missed(p)
		}
		return false
	}
	s.Peers.Seen(p, skephost.Reachable(s.Host, skephost.ID(p)))
	s.Peers.Said(p, hello)
	s.Peers.Timed(p, s.Now().Sub(begin))
	return true
}

// putOff leaves those due who were not greeted after all.
func (s *Survey) putOff(who []group.PeerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range who {
		g := s.next[p]
		g.begun = false
		s.next[p] = g
	}
}

// Silent reports whether a peer did not answer the last greeting, or not before most had.
func (s *Survey) Silent(p group.PeerKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next[p].fails > 0
}

// plan sets when a peer is greeted next. That the greeting waited for other calls from here
// is no silence.
func (s *Survey) plan(p group.PeerKey, answered, waited bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g := s.next[p]
	g.begun = false
	if answered && g.soon {
		g = greeting{}
	} else if answered {
		g = greeting{at: s.Now().Add(s.Every)}
	} else {
		g.at = s.Now().Add(min(s.Every, firstRetry<<min(g.fails, 16)))
		if !waited {
			g.fails++
		}
	}
	s.next[p] = g
}
