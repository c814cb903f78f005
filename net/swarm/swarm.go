package swarm

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
)

// Holders is how holders are asked; *client.Client is one.
type Holders interface {
	Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error)
	Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error
	Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error)
	// GetBare returns what the peer says, unchecked, in memory that room gives,
	// if that is not nil.
	GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, room func(n int) []byte) ([]byte, error)
	Manifests(ctx context.Context, p group.PeerKey, id group.ID, wanted group.Bitmap) (map[uint16][]byte, error)
	Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error)
}

// Finder finds the holders of a group that no table names; net/dht is one.
type Finder interface {
	// EachHolder calls fn with each of them as they are found, one after the other.
	EachHolder(ctx context.Context, id group.ID, limit int, fn func(group.PeerKey)) error
}

var (
	// ErrTooFew says that too few holders took their shard.
	ErrTooFew = errors.New("too few holders took their shard")
	// ErrUnreachable says that too few holders answer; they may be back.
	ErrUnreachable = errors.New("too few holders answer")
	// ErrLost says that so many holders answered that they do not have their
	// shard that fewer than k can be left.
	ErrLost = errors.New("too few shards are left")
	// ErrAbsent says that of those who answer nobody knows a holder of the group.
	ErrAbsent = errors.New("nobody who answers knows a holder of the group")
)

// Config says what a Swarm works with. Holders is needed.
type Config struct {
	Holders Holders
	Finder  Finder                   // nil: only holders that are named are asked
	Peers   *peers.Directory         // nil: nobody is told
	Silent  func(group.PeerKey) bool // who is asked after others, beside those that failed; nil: nobody
	Now     func() time.Time         // nil is time.Now
	Log     *slog.Logger             // nil: nowhere
	// Hedge is how long a reader waits for one holder before others are asked
	// too, as long as nobody's speed was measured; 0 is 400 ms.
	Hedge time.Duration
	// Silence is how long a read goes on when nothing at all comes; 0 is 10 s.
	Silence time.Duration
	// Grace is how long a writer waits for the remaining holders when enough
	// have acknowledged; 0 is 5 s.
	Grace time.Duration
	// Timeout bounds one range, and one shard beside the time for its bytes; 0 is 60 s.
	Timeout time.Duration
	// Shun is the longest time for which a peer that failed, again and again, is
	// asked last, and gets no new slots; 0 is five minutes.
	Shun time.Duration
}

// Swarm is safe for concurrent use.
type Swarm struct {
	c      Config
	line   line
	quiet  quiet
	push   *pushes // through which shards go out …
	failed *pushes // … to those who failed lately
	// asking has room for those who are asked which slot they hold.
	asking chan struct{}

	mu        sync.Mutex // guards all below
	manifests map[packKey]*group.Manifest
	searches  map[group.ID]*search
	shunned   shuns // who failed
	crowded   shuns // who took no new group
	paces     map[group.PeerKey]*pace
	all       pace      // of all together
	scouted   time.Time // until when a scout is out
}

type packKey struct {
	group  group.ID
	number uint16
}

// shuns are the peers that are left alone for a while because of something that
// they did, longer each time.
type shuns map[group.PeerKey]shun

// shun says until when, and how often it was done.
type shun struct {
	until time.Time
	times int
}

// maxShuns bounds how many peers are remembered so: anybody can have peers named that
// are not there.
const maxShuns = 8192

// again leaves a peer alone from now on, for most at most.
func (s shuns) again(p group.PeerKey, now time.Time, most time.Duration) {
	if len(s) >= maxShuns {
		maps.DeleteFunc(s, func(_ group.PeerKey, sh shun) bool { return !now.Before(sh.until) })
	}
	if len(s) >= maxShuns {
		clear(s)
	}
	sh := s[p]
	sh.times++
	sh.until = now.Add(min(min(firstShun, most/3)<<min(sh.times-1, 10), most))
	s[p] = sh
}

// has reports whether a peer is left alone.
func (s shuns) has(p group.PeerKey, now time.Time) bool {
	sh, ok := s[p]
	return ok && now.Before(sh.until)
}

// firstShun is how long a peer is asked last after it failed once, unless the longest
// is less than three times that.
const firstShun = 5 * time.Second

// New returns a Swarm.
func New(c Config) *Swarm {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.Hedge, 400*time.Millisecond)
	set(&c.Silence, 10*time.Second)
	set(&c.Grace, 5*time.Second)
	set(&c.Timeout, time.Minute)
	set(&c.Shun, 5*time.Minute)
	return &Swarm{c: c, push: newPushes(firstPushes), failed: newPushes(leastPushes), asking: make(chan struct{}, askedAtOnce), manifests: map[packKey]*group.Manifest{}, searches: map[group.ID]*search{},
		shunned: shuns{}, crowded: shuns{}, paces: map[group.PeerKey]*pace{}}
}

// note takes note of how a call to a peer ended.
func (s *Swarm) note(p group.PeerKey, err error, took time.Duration) {
	switch {
	case errors.Is(err, client.ErrUnreachable), errors.Is(err, client.ErrLied), errors.Is(err, client.ErrBusy):
		s.shun(p)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return // the asker went away: nobody's fault, nobody's merit
	default:
		s.mu.Lock()
		delete(s.shunned, p)
		s.mu.Unlock()
	}
	if s.c.Peers == nil {
		return
	}
	switch {
	case errors.Is(err, client.ErrLied):
		s.c.Log.Warn("a peer sent what cannot be true", "peer", p, "err", err)
		s.c.Peers.Strike(p)
	case errors.Is(err, client.ErrUnreachable):
		s.c.Peers.Missed(p)
	case errors.Is(err, client.ErrFull):
		s.c.Peers.Full(p)
	case errors.Is(err, client.ErrCrowded):
		s.mu.Lock()
		s.crowded.again(p, s.c.Now(), s.c.Shun)
		s.mu.Unlock()
	case err == nil && took > 0:
		s.c.Peers.Seen(p, "")
	}
}

// shun has a peer asked last for a while, longer each time.
func (s *Swarm) shun(p group.PeerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shunned.again(p, s.c.Now(), s.c.Shun)
}

// shuns reports whether a peer failed so lately that others come first.
func (s *Swarm) shuns(p group.PeerKey) bool {
	return s.c.Silent != nil && s.c.Silent(p) || !s.Alive(p)
}

// Crowded reports whether a peer took no new group lately: it may have room for
// more shards of those that it has.
func (s *Swarm) Crowded(p group.PeerKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.crowded.has(p, s.c.Now())
}

// Alive reports whether a peer did not fail lately.
func (s *Swarm) Alive(p group.PeerKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.shunned.has(p, s.c.Now())
}

var errNone = errors.New("no holder was asked")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}
