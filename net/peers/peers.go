package peers

import (
	"bytes"
	"cmp"
	"slices"
	"sync"
	"time"

	"skep/chunker/group"
	"skep/net/wire"
)

const (
	// Prior is the availability of a peer that was not measured yet.
	Prior = 0.85
	// DefaultMax is how many peers a directory knows unless told otherwise.
	DefaultMax = 4096
	// DefaultWindow is the length of an observation window unless told
	// otherwise.
	DefaultWindow = time.Hour
	// DefaultDeadAfter is how long a peer is silent that counts as dead, unless
	// told otherwise.
	DefaultDeadAfter = 72 * time.Hour
	// DefaultMemory is how long lies are remembered unless told otherwise.
	DefaultMemory = 365 * 24 * time.Hour
	// MaxAddrs is how many addresses are kept of a peer.
	MaxAddrs = 8
	// MaxAddr is the longest address that is kept, in bytes.
	MaxAddr = 256
)

// Weights of the availability estimate, in windows: what Prior counts for, and
// how many windows back the estimate reaches.
const (
	priorWindows  = 8
	memoryWindows = 14 * 24
)

// maxStrikes is where counting lies ends.
const maxStrikes = 1 << 16

// State is what is thought of a peer.
type State uint8

// The states. Unknown is a peer that never answered, or of which it cannot be told
// whether it is there, as we were away ourselves.
const (
	Unknown State = iota
	Alive
	Suspect // silent for some hours: it may come back
	Dead    // silent for days, or it lied: its slots go to others
)

// String is the state in one word.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "invalid"
}

var stateNames = [...]string{"unknown", "alive", "suspect", "dead"}

// Peer is what is known of one peer. It is a copy: it shares nothing with the
// directory, except Addrs, which must not be changed.
type Peer struct {
	Key   group.PeerKey
	Addrs []string // the one that worked last comes first

	Offered int64     // bytes, as its last hello said
	Free    int64     // bytes, less what we have used since
	Region  string    // claimed
	Domain  string    // claimed
	HelloAt time.Time // zero if it never said hello

	FirstSeen time.Time     // zero if it was only heard of
	LastSeen  time.Time     // zero if it was only heard of
	Silent    time.Duration // since LastSeen, as far as it was asked and others answered
	Asked     bool          // in this run, and it answered or not
	Misses    int           // questions in a row that it did not answer, in this run
	RoundTrip time.Duration // smoothed; 0 is not measured

	Availability float64   // 0 … 1; Prior at first
	Windows      int       // that Availability was measured in
	Strikes      int       // lies, until they are forgotten
	StruckAt     time.Time // when it lied last; zero if it never did
	Barred       bool      // because it lied, it is to be given nothing now
	State        State     // by health, else by its silence
	Pinned       bool      // it holds something of ours and is never driven out
}

// IsThere reports whether a peer is neither thought to be gone nor barred.
func (p Peer) IsThere() bool { return p.State != Suspect && p.State != Dead && !p.Barred }

// Options of a directory. The zero value is valid.
type Options struct {
	Clock  func() time.Time // nil is time.Now
	Max    int              // peers; 0 is DefaultMax
	Window time.Duration    // of observation; 0 is DefaultWindow
	// DeadAfter is after how long a silent peer is dead; 0 is DefaultDeadAfter.
	DeadAfter time.Duration
	Memory    time.Duration // for how long lies are remembered; 0 is DefaultMemory
}

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = time.Now
	}
	if o.Max <= 0 {
		o.Max = DefaultMax
	}
	if o.Window <= 0 {
		o.Window = DefaultWindow
	}
	if o.DeadAfter <= 0 {
		o.DeadAfter = DefaultDeadAfter
	}
	if o.Memory <= 0 {
		o.Memory = DefaultMemory
	}
	return o
}

// Directory is the set of known peers. It is safe for concurrent use.
type Directory struct {
	opts Options

	mu       sync.RWMutex // guards all below
	peers    map[group.PeerKey]*entry
	window   int64 // number of the current observation window
	answered bool  // somebody answered in it
	watch    watch
	revision uint64
}

// entry is a peer with its answers in the current window. What follows from others,
// or from the time, is left out of Peer: view adds it.
type entry struct {
	Peer
	judged       State         // by health
	asked        time.Duration // the watch when it was asked last, or became known
	hits, misses int
}

// New returns an empty directory.
func New(o Options) *Directory {
	d := &Directory{opts: o.withDefaults(), peers: map[group.PeerKey]*entry{}}
	d.window = d.windowAt(d.opts.Clock())
	return d
}

// Heard notes a peer that somebody spoke of. It counts for nothing but its
// addresses, which come after those known already.
func (d *Directory) Heard(key group.PeerKey, addrs ...string) {
	d.update(key, func(e *entry, _ time.Time) { e.Addrs = joinAddrs(e.Addrs, addrs) })
}

// Seen notes that a peer answered, and the address at which it did if that is
// known, else "".
func (d *Directory) Seen(key group.PeerKey, addr string) {
	d.update(key, func(e *entry, now time.Time) {
		d.seen(e, now)
		if addr != "" {
			e.Addrs = joinAddrs([]string{addr}, e.Addrs)
		}
	})
}

// seen notes an answer. Caller holds mu.
func (d *Directory) seen(e *entry, now time.Time) {
	if e.FirstSeen.IsZero() {
		e.FirstSeen = now
	}
	e.LastSeen = now
	e.Asked, e.Misses, e.Silent = true, 0, 0
	e.hits++
	d.answered = true
	d.watch.answer(now, d.opts.lately())
	e.asked = d.watch.total
}

// Missed notes that a known peer did not answer.
func (d *Directory) Missed(key group.PeerKey) {
	d.updateKnown(key, func(e *entry, _ time.Time) {
		e.misses++
		e.Asked = true
		e.Misses++
		e.Silent += min(d.watch.total-e.asked, d.opts.lately())
		e.asked = d.watch.total
	})
}

// Said notes what a peer said in its hello; like Seen, it counts as an answer.
// A hello that wire.ParseHello did not check must not be given.
func (d *Directory) Said(key group.PeerKey, h wire.Hello) {
	d.update(key, func(e *entry, now time.Time) {
		d.seen(e, now)
		e.Offered, e.Free, e.Region, e.Domain = h.Offered, h.Free, h.Region, h.Domain
		e.HelloAt = now
	})
}

// Took notes that a peer has used so much of its room for us since its hello;
// a negative number that it has given room back.
func (d *Directory) Took(key group.PeerKey, bytes int64) {
	d.updateKnown(key, func(e *entry, _ time.Time) { e.Free = min(max(0, e.Free-bytes), e.Offered) })
}

// Full notes that a peer refused for want of room.
func (d *Directory) Full(key group.PeerKey) {
	d.updateKnown(key, func(e *entry, _ time.Time) { e.Free = 0 })
}

// Timed notes how long a small exchange with a peer took. Each measurement
// moves the estimate by an eighth of the difference, as in TCP.
func (d *Directory) Timed(key group.PeerKey, rtt time.Duration) {
	if rtt <= 0 {
		return
	}
	d.updateKnown(key, func(e *entry, _ time.Time) {
		if e.RoundTrip == 0 {
			e.RoundTrip = rtt
			return
		}
		e.RoundTrip += (rtt - e.RoundTrip) / 8
	})
}

// Strike notes that a peer lied: it sent what cannot be true, and no accident
// of the network explains it.
func (d *Directory) Strike(key group.PeerKey) {
	d.updateKnown(key, func(e *entry, now time.Time) {
		e.Strikes, e.StruckAt = min(e.Strikes+1, maxStrikes), now
	})
}

// barred reports whether a peer that lied so often, the last time so long ago,
// is to be given nothing: for a twelfth of the memory after its first lie, a
// third after its second, and all of it from the third on. Then its lies are
// forgotten.
func barred(strikes int, ago, memory time.Duration) bool {
	switch strikes {
	case 0:
		return false
	case 1:
		return ago < memory/12
	case 2:
		return ago < memory/3
	}
	return ago < memory
}

// view is what is known of a peer now. Caller holds mu.
func (d *Directory) view(e *entry, now time.Time) Peer {
	p := e.Peer
	p.Barred = barred(p.Strikes, now.Sub(p.StruckAt), d.opts.Memory)
	p.State = e.judged
	if e.judged == Unknown && !p.LastSeen.IsZero() {
		p.State = d.opts.stateOf(p.Silent, now.Sub(p.LastSeen))
	}
	return p
}

// Judge sets what health thinks of a peer: Unknown leaves it to the directory.
func (d *Directory) Judge(key group.PeerKey, s State) {
	if d.judged(key) != s {
		d.updateKnown(key, func(e *entry, _ time.Time) { e.judged = s })
	}
}

func (d *Directory) judged(key group.PeerKey) State {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if e, ok := d.peers[key]; ok {
		return e.judged
	}
	return Unknown
}

// Pin says whether a peer holds something of ours. A pinned peer is never
// driven out.
func (d *Directory) Pin(key group.PeerKey, pinned bool) {
	d.updateKnown(key, func(e *entry, _ time.Time) { e.Pinned = pinned })
}

// Forget removes a peer.
func (d *Directory) Forget(key group.PeerKey) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, ok := d.peers[key]; ok {
		delete(d.peers, key)
		d.revision++
	}
}

// Get returns what is known of a peer.
func (d *Directory) Get(key group.PeerKey) (Peer, bool) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	e, ok := d.peers[key]
	if !ok {
		return Peer{}, false
	}
	return d.view(e, d.opts.Clock()), true
}

// List returns all known peers, in the order of their keys.
func (d *Directory) List() []Peer {
	d.mu.RLock()
	defer d.mu.RUnlock()
	out := make([]Peer, 0, len(d.peers))
	now := d.opts.Clock()
	for _, e := range d.peers {
		out = append(out, d.view(e, now))
	}
	slices.SortFunc(out, func(a, b Peer) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	return out
}

// Len is how many peers are known.
func (d *Directory) Len() int {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return len(d.peers)
}

// Revision grows with each change, so that a caller knows when there is
// something to write.
func (d *Directory) Revision() uint64 {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return d.revision
}

// update changes the entry of a peer, which it makes if there is none.
func (d *Directory) update(key group.PeerKey, change func(*entry, time.Time)) {
	if key.IsZero() {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.opts.Clock()
	d.roll(now)
	e, ok := d.peers[key]
	if !ok {
		e = &entry{Peer: Peer{Key: key, Availability: Prior}, asked: d.watch.total}
		d.peers[key] = e
	}
	change(e, now)
	d.revision++
	d.evict(e, now)
}

// updateKnown changes the entry of a peer if there is one.
func (d *Directory) updateKnown(key group.PeerKey, change func(*entry, time.Time)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.opts.Clock()
	d.roll(now)
	if e, ok := d.peers[key]; ok {
		change(e, now)
		d.revision++
	}
}

// evict removes the worst peers until there are no more than may be. Pinned
// ones stay even then: their number is bounded by the groups that we have. So
// does latest, if it has answered: it had no time yet to show its worth.
// Caller holds mu.
func (d *Directory) evict(latest *entry, now time.Time) {
	for len(d.peers) > d.opts.Max {
		var worst *Peer
		for _, e := range d.peers {
			if e.Pinned || e == latest && !e.FirstSeen.IsZero() {
				continue
			}
			if p := d.view(e, now); worst == nil || compareWorth(p, *worst) < 0 {
				worst = &p
			}
		}
		if worst == nil {
			return
		}
		delete(d.peers, worst.Key)
	}
}

// compareWorth is negative where a is worth less than b: because it lied more,
// is dead, was never seen, offers nothing, or was not seen for longer.
func compareWorth(a, b Peer) int {
	return cmp.Or(
		cmp.Compare(b.Strikes, a.Strikes),
		cmp.Compare(truth(b.State == Dead), truth(a.State == Dead)),
		cmp.Compare(truth(!a.FirstSeen.IsZero()), truth(!b.FirstSeen.IsZero())),
		cmp.Compare(truth(b.State == Suspect), truth(a.State == Suspect)),
		cmp.Compare(truth(a.Offered > 0), truth(b.Offered > 0)),
		a.LastSeen.Compare(b.LastSeen),
		bytes.Compare(a.Key[:], b.Key[:]),
	)
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// joinAddrs returns first and then those of rest that are new, within the
// bounds. It changes neither.
func joinAddrs(first, rest []string) []string {
	out := make([]string, 0, MaxAddrs)
	for _, a := range slices.Concat(first, rest) {
		if len(out) < MaxAddrs && a != "" && len(a) <= MaxAddr && !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (d *Directory) windowAt(now time.Time) int64 {
	return now.UnixNano() / int64(d.opts.Window)
}

// roll closes the observation window if its time is over, and forgets old lies and
// who is gone. Caller holds mu.
func (d *Directory) roll(now time.Time) {
	w := d.windowAt(now)
	if w == d.window {
		return
	}
	for _, e := range d.peers {
		if d.answered && e.hits+e.misses > 0 {
			e.measure(float64(e.hits) / float64(e.hits+e.misses))
		}
		e.hits, e.misses = 0, 0
		if now.Sub(e.StruckAt) >= d.opts.Memory {
			e.Strikes, e.StruckAt = 0, time.Time{}
		}
		if !e.Pinned && e.Strikes == 0 && e.Silent > forgottenAfter*d.opts.DeadAfter {
			delete(d.peers, e.Key)
		}
	}
	d.window, d.answered = w, false
}

// measure takes one window into the estimate.
func (e *entry) measure(part float64) {
	e.Windows = min(e.Windows+1, memoryWindows)
	weight := 1 / float64(min(e.Windows+priorWindows, memoryWindows))
	e.Availability += (part - e.Availability) * weight
}
