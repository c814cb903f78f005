package swarm

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/chunker/group"
	"skep/net/client"
)

const (
	maxFound = 256         // groups of which it is remembered who was found
	foundFor = time.Minute // how long
	maxNamed = 4096        // peers that are said to hold a group, of which there may be made-up ones

	namingTime  = 10 * time.Second // for the directory to name them
	askingTime  = 2 * time.Second  // for each of them to say what it holds
	askedAtOnce = 96               // of all groups: a client has more calls, for those who read
)

// holders are the peers to be asked for a pack.
type holders struct {
	of     map[uint8][]group.PeerKey // by slot, the likeliest first
	silent int                       // further ones, of whom nobody knows the slots as they do not answer
}

// named are the holders that the table names.
func named(ref group.PackRef) holders {
	out := holders{of: map[uint8][]group.PeerKey{}}
	for i, p := range ref.Slots {
		if !p.IsZero() {
			out.of[uint8(i)] = append(out.of[uint8(i)], p)
		}
	}
	return out
}

// A search asks those that the directory names for a group which slot they
// hold. Anybody can have himself named: so many are asked at once, each for a
// short time, those that are known to be peers first, and nobody has to wait
// for the last. All who look for holders of the group share the search; it goes
// on as long as somebody does, and is taken up again where it was left.
type search struct {
	mu      sync.Mutex // guards all below
	claims  []claim
	asked   map[group.PeerKey]bool
	silent  int  // of those asked
	more    bool // there are so many that some have to wait to be asked
	done    bool
	err     error // of the directory
	at      time.Time
	lookers int
	ended   chan struct{} // closed when nobody works on it; nil before the first
	stop    context.CancelFunc
	news    chan struct{} // closed at the next change
}

// claim is a holder's word that it holds a slot, and which packs of it.
type claim struct {
	source
	held group.Bitmap
}

// look takes part in the search for holders of a group; leave ends that.
func (s *Swarm) look(id group.ID) *search {
	s.mu.Lock()
	defer s.mu.Unlock()
	sr := s.searches[id]
	if sr == nil || sr.old(s.c.Now()) {
		if len(s.searches) >= maxFound {
			clear(s.searches)
		}
		sr = &search{asked: map[group.PeerKey]bool{}, news: make(chan struct{})}
		s.searches[id] = sr
	}
	sr.mu.Lock()
	defer sr.mu.Unlock()
	if sr.lookers++; sr.lookers == 1 && !sr.done {
		ctx, stop := context.WithTimeout(context.Background(), s.c.Timeout)
		before, ended := sr.ended, make(chan struct{})
		sr.stop, sr.ended = stop, ended
		go func() {
			defer close(ended)
			if before != nil {
				<-before // it was told to end
			}
			s.search(ctx, id, sr)
		}()
	}
	return sr
}

// old reports whether the search is to be made again: some time after it ended,
// or at once if it found nobody.
func (sr *search) old(now time.Time) bool {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	return sr.done && (len(sr.claims) == 0 || now.Sub(sr.at) >= foundFor)
}

// leave ends a part in the search, and with the last one the search.
func (sr *search) leave() {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	if sr.lookers--; sr.lookers == 0 && sr.stop != nil {
		sr.stop()
	}
}

// goesOn reports whether some have not been asked yet.
func (sr *search) goesOn() bool {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	return sr.more
}

// holders returns who was found so far, those first that have a pack; a channel
// that is closed when there is more; and whether all were asked.
func (sr *search) holders(number uint16) (out holders, news <-chan struct{}, done bool) {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	out = holders{of: map[uint8][]group.PeerKey{}, silent: sr.silent}
	for _, having := range []bool{true, false} {
		for _, c := range sr.claims {
			if c.held.Has(number) == having {
				out.of[c.slot] = append(out.of[c.slot], c.peer)
			}
		}
	}
	return out, sr.news, sr.done
}

// none says why nobody was found.
func (sr *search) none() error {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	if sr.silent > 0 || errors.Is(sr.err, context.DeadlineExceeded) {
		return ErrUnreachable
	}
	return ErrAbsent
}

// change changes what was found, and tells those who look.
func (sr *search) change(fn func()) {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	fn()
	close(sr.news)
	sr.news = make(chan struct{})
}

// askedEarly is how many that never answered are asked before all are named: those that
// are known to be peers go before the others, however many these are.
const askedEarly = 32

// search asks whom the directory names until ctx ends: those that are known to be peers,
// and some others, as they are named.
func (s *Swarm) search(ctx context.Context, id group.ID, sr *search) {
	keys := make(chan group.PeerKey, maxNamed)
	var err error // set when keys is closed
	go func() {
		defer close(keys)
		naming, cancel := context.WithTimeout(ctx, namingTime)
		defer cancel()
		err = s.c.Finder.EachHolder(naming, id, maxNamed, func(p group.PeerKey) { keys <- p })
	}()
	var asking errgroup.Group
	asking.SetLimit(askedAtOnce)
	ask := func(p group.PeerKey) {
		if ctx.Err() == nil && sr.first(p) {
			asking.Go(func() error { s.askSlot(ctx, id, p, sr); return nil })
		}
	}
	var rest []group.PeerKey
	early := 0
	for p := range keys {
		if s.unlikely(p) > 0 {
			if early++; early > askedEarly {
				rest = append(rest, p)
				continue
			}
		}
		ask(p)
	}
	slices.SortStableFunc(rest, func(a, b group.PeerKey) int { return s.unlikely(a) - s.unlikely(b) })
	for i, p := range rest {
		if i == askedAtOnce {
			sr.change(func() { sr.more = true })
		}
		ask(p)
	}
	sr.change(func() { sr.more = false })
	_ = asking.Wait()
	sr.change(func() {
		if !errors.Is(ctx.Err(), context.Canceled) {
			sr.done, sr.err, sr.at = true, err, s.c.Now()
		}
	})
}

// first reports whether a peer was not asked yet.
func (sr *search) first(p group.PeerKey) bool {
	sr.mu.Lock()
	defer sr.mu.Unlock()
	first := !sr.asked[p]
	sr.asked[p] = true
	return first
}

// unlikely is how unlikely it is that a peer answers: 0 for one that ever has, 2 for one
// that failed lately.
func (s *Swarm) unlikely(p group.PeerKey) int {
	if s.shuns(p) {
		return 2
	}
	if s.c.Peers != nil {
		if known, ok := s.c.Peers.Get(p); ok && !known.FirstSeen.IsZero() {
			return 0
		}
	}
	return 1
}

// askSlot asks a peer which slot of a group it holds.
func (s *Swarm) askSlot(ctx context.Context, id group.ID, p group.PeerKey, sr *search) {
	select {
	case s.asking <- struct{}{}:
		defer func() { <-s.asking }()
	case <-ctx.Done():
	}
	timed, cancel := context.WithTimeout(ctx, askingTime)
	defer cancel()
	st, err := s.c.Holders.Statement(timed, p, id)
	if ctx.Err() != nil && err != nil {
		sr.change(func() { delete(sr.asked, p) }) // by who takes it up
		return
	}
	if ended(err) && !errors.Is(err, client.ErrWaited) { // it took too long
		err = client.ErrUnreachable
	}
	s.note(p, err, 0)
	switch {
	case errors.Is(err, client.ErrAbsent), errors.Is(err, client.ErrLied):
	case err != nil:
		sr.change(func() { sr.silent++ })
	default:
		sr.change(func() { sr.claims = append(sr.claims, claim{source{st.Slot, p}, st.Held}) })
	}
}
