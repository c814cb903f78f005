// Package swarm stores packs with holders and reads them back.
//
// A pack's shards go to the holders of its group, one slot each, all at once; a
// range of a pack comes from the data shard that has it or, when that holder is
// slow, gone or wrong, from the same range of any k shards. A reader waits for
// one slow peer no longer than it takes to notice: then the others are asked
// beside it, and the first to complete the answer wins.
//
// The swarm knows nothing of what is in a pack. What it learns of peers on the
// way, it tells the directory of peers.
package swarm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
)

// Holders is how holders are asked; *client.Client is one.
type Holders interface {
	Admit(ctx context.Context, p group.PeerKey, lease []byte, slot uint8) (group.Statement, error)
	Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error
	Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error)
	Manifests(ctx context.Context, p group.PeerKey, id group.ID, wanted group.Bitmap) (map[uint16][]byte, error)
	Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error)
}

// Finder finds the holders of a group that no table names; net/dht is one.
type Finder interface {
	FindHolders(ctx context.Context, id group.ID, limit int) ([]group.PeerKey, error)
}

var (
	// ErrTooFew says that too few holders took their shard.
	ErrTooFew = errors.New("too few holders took their shard")
	// ErrUnreachable says that too few holders answer; they may be back.
	ErrUnreachable = errors.New("too few holders answer")
	// ErrLost says that so many holders answered that they do not have their
	// shard that fewer than k can be left.
	ErrLost = errors.New("too few shards are left")
	// ErrAbsent says that nobody knows the group.
	ErrAbsent = errors.New("no holder of the group is known")
)

// Config says what a Swarm works with. Holders is needed.
type Config struct {
	Holders Holders
	Finder  Finder           // nil: only holders that are named are asked
	Peers   *peers.Directory // nil: nobody is told
	Now     func() time.Time // nil is time.Now
	Log     *slog.Logger     // nil: nowhere
	// Hedge is how long a reader waits for one holder before others are asked
	// too; 0 is 400 ms.
	Hedge time.Duration
	// Grace is how long a writer waits for the remaining holders when enough
	// have acknowledged; 0 is 5 s.
	Grace time.Duration
	// Timeout bounds one range, and one shard; 0 is 60 s.
	Timeout time.Duration
}

// Swarm is safe for concurrent use.
type Swarm struct {
	c Config

	mu        sync.Mutex // guards all below
	manifests map[packKey]*group.Manifest
	found     map[group.ID]foundSlots
	shunned   map[group.PeerKey]shun
}

type packKey struct {
	group  group.ID
	number uint16
}

// foundSlots are holders that were found by asking around.
type foundSlots struct {
	slots  map[uint8]group.PeerKey
	silent int // those that did not answer, whatever their slots are
	at     time.Time
}

// shun says until when a peer that failed is asked last.
type shun struct {
	until time.Time
	times int
}

const (
	maxManifests = 8192
	maxFound     = 256
	foundFor     = time.Minute
	firstShun    = 5 * time.Second
	longestShun  = 5 * time.Minute
	findHolders  = 64
)

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
	set(&c.Grace, 5*time.Second)
	set(&c.Timeout, time.Minute)
	return &Swarm{c: c, manifests: map[packKey]*group.Manifest{}, found: map[group.ID]foundSlots{}, shunned: map[group.PeerKey]shun{}}
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
	case err == nil && took > 0:
		s.c.Peers.Seen(p, "")
	}
}

// shun has a peer asked last for a while, longer each time.
func (s *Swarm) shun(p group.PeerKey) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shunned[p]
	sh.times++
	sh.until = s.c.Now().Add(min(firstShun<<min(sh.times-1, 10), longestShun))
	s.shunned[p] = sh
}

// shuns reports whether a peer failed so lately that others come first.
func (s *Swarm) shuns(p group.PeerKey) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	sh, ok := s.shunned[p]
	return ok && s.c.Now().Before(sh.until)
}

// Lease hands a lease to the holders of a group and returns the slots whose
// holders took it. It fails with ErrTooFew if not even k did.
func (s *Swarm) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	var out group.SlotSet
	var mu sync.Mutex // guards out
	var why error
	s.each(ctx, g.Slots, func(ctx context.Context, slot int, p group.PeerKey) {
		_, err := s.c.Holders.Admit(ctx, p, lease, uint8(slot))
		s.note(p, err, 0)
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			out.Add(slot)
		} else {
			why = err
		}
	})
	if n := out.Count(); n < int(g.Coding.K) {
		return out, fmt.Errorf("%w: %d of %d took the lease (%w)", ErrTooFew, n, g.Coding.N, orNone(why))
	}
	return out, nil
}

var errNone = errors.New("no holder was asked")

func orNone(err error) error {
	if err == nil {
		return errNone
	}
	return err
}

// each calls fn for every slot that has a holder, all at once, and waits.
func (s *Swarm) each(ctx context.Context, slots []group.PeerKey, fn func(ctx context.Context, slot int, p group.PeerKey)) {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	var wg sync.WaitGroup
	for i, p := range slots {
		if !p.IsZero() {
			wg.Go(func() { fn(ctx, i, p) })
		}
	}
	wg.Wait()
}

// Store hands the shards of a pack to the holders of its group, all at once. It
// returns the slots whose holders have their shard on the disk. When enough
// have, it waits for the others a little longer, at most as long again as it
// took; with fewer it fails with ErrTooFew. A holder that does not know the
// group is given the lease first.
func (s *Swarm) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte, enough int) (group.SlotSet, error) {
	begin := s.c.Now()
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout+storeTime(len(shards[0])))
	defer cancel()
	type ended struct {
		slot int
		err  error
	}
	ends := make(chan ended, len(g.Slots))
	running := 0
	for i, p := range g.Slots {
		if p.IsZero() {
			continue
		}
		running++
		go func() { ends <- ended{i, s.storeShard(ctx, p, lease, manifest, uint8(i), shards[i])} }()
	}
	var out group.SlotSet
	var why error
	var grace <-chan time.Time
	for ; running > 0; running-- {
		select {
		case e := <-ends:
			if e.err == nil {
				out.Add(e.slot)
			} else {
				why = e.err
			}
		case <-grace:
			cancel()
			grace = nil
			running++ // nobody ended
		}
		if out.Count() >= enough && grace == nil && ctx.Err() == nil {
			t := time.NewTimer(max(s.c.Grace, s.c.Now().Sub(begin)))
			defer t.Stop()
			grace = t.C
		}
	}
	if out.Count() < enough {
		return out, fmt.Errorf("%w: %d of %d, %d would do (%w)", ErrTooFew, out.Count(), len(shards), enough, orNone(why))
	}
	return out, nil
}

// storeTime is what a shard of this size may take beside the usual: a peer at
// 256 KiB/s is slow, but not lost.
func storeTime(size int) time.Duration { return time.Duration(size) * time.Second / (256 << 10) }

func (s *Swarm) storeShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error {
	begin := s.c.Now()
	err := s.c.Holders.Put(ctx, p, manifest, slot, shard)
	if lease != nil && (errors.Is(err, client.ErrRefused) || errors.Is(err, client.ErrAbsent)) {
		if _, aerr := s.c.Holders.Admit(ctx, p, lease, slot); aerr != nil {
			s.note(p, aerr, 0)
			return aerr
		}
		err = s.c.Holders.Put(ctx, p, manifest, slot, shard)
	}
	if ctx.Err() == nil || err == nil {
		s.note(p, err, s.c.Now().Sub(begin))
	}
	if err == nil && s.c.Peers != nil {
		s.c.Peers.Took(p, int64(len(shard)))
	}
	return err
}

// StoreShard brings one shard to one peer, with the lease of its group.
func (s *Swarm) StoreShard(ctx context.Context, p group.PeerKey, lease, manifest []byte, slot uint8, shard []byte) error {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout+storeTime(len(shard)))
	defer cancel()
	return s.storeShard(ctx, p, lease, manifest, slot, shard)
}

// holders are the peers to be asked for a pack.
type holders struct {
	of     map[uint8][]group.PeerKey // by slot
	silent int                       // further ones, of whom nobody knows the slots as they do not answer
}

func (h holders) count() (n int) {
	for _, of := range h.of {
		n += len(of)
	}
	return n
}

// holdersOf returns who is to be asked for each slot: the one that the table
// names, and, if ask says so or it names none, who was found by asking around.
func (s *Swarm) holdersOf(ctx context.Context, ref group.PackRef, ask bool) (holders, error) {
	out := holders{of: map[uint8][]group.PeerKey{}}
	for i, p := range ref.Slots {
		if !p.IsZero() {
			out.of[uint8(i)] = append(out.of[uint8(i)], p)
		}
	}
	if len(out.of) > 0 && !ask {
		return out, nil
	}
	var found foundSlots
	var err error
	if s.c.Finder != nil {
		found, err = s.findSlots(ctx, ref)
	}
	for slot, p := range found.slots {
		if !slices.Contains(out.of[slot], p) {
			out.of[slot] = append(out.of[slot], p)
		}
	}
	out.silent = found.silent
	switch {
	case len(out.of) > 0:
		return out, nil
	case ctx.Err() != nil:
		return out, ctx.Err()
	case found.silent > 0, errors.Is(err, context.DeadlineExceeded):
		return out, fmt.Errorf("%w: of %d that are said to hold the group, none (%w)", ErrUnreachable, found.silent, orNone(err))
	}
	return out, fmt.Errorf("%w: %w", ErrAbsent, orNone(err))
}

// findSlots asks the directory who holds a group, and those which slot.
func (s *Swarm) findSlots(ctx context.Context, ref group.PackRef) (foundSlots, error) {
	s.mu.Lock()
	f, ok := s.found[ref.Group]
	s.mu.Unlock()
	if ok && s.c.Now().Sub(f.at) < foundFor {
		return f, nil
	}
	keys, err := s.c.Finder.FindHolders(ctx, ref.Group, findHolders)
	if err != nil && len(keys) == 0 {
		return foundSlots{}, err
	}
	f = foundSlots{slots: map[uint8]group.PeerKey{}}
	var mu sync.Mutex // guards f
	s.each(ctx, keys, func(ctx context.Context, _ int, p group.PeerKey) {
		st, err := s.c.Holders.Statement(ctx, p, ref.Group)
		s.note(p, err, 0)
		mu.Lock()
		defer mu.Unlock()
		switch _, ok := f.slots[st.Slot]; {
		case errors.Is(err, client.ErrAbsent), errors.Is(err, client.ErrLied):
		case err != nil:
			f.silent++
		case int(st.Slot) < int(ref.Coding.N) && (!ok || st.Held.Has(ref.Number)):
			f.slots[st.Slot] = p
		}
	})
	f.at = s.c.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.found) >= maxFound {
		clear(s.found)
	}
	if len(f.slots) > 0 {
		s.found[ref.Group] = f
	}
	return f, nil
}

// Manifest returns the manifest of a pack, asking holders if nobody here has
// it, and checked either way.
func (s *Swarm) Manifest(ctx context.Context, ref group.PackRef) (*group.Manifest, error) {
	k := packKey{ref.Group, ref.Number}
	s.mu.Lock()
	m, ok := s.manifests[k]
	s.mu.Unlock()
	if ok {
		return m, nil
	}
	if ref.Manifest == nil {
		return s.askManifest(ctx, ref)
	}
	parsed, err := group.ParseManifest(ref.Manifest)
	if err == nil && !describes(&parsed, ref) {
		err = fmt.Errorf("%w: manifest of another pack", client.ErrLied)
	}
	if err != nil {
		return nil, fmt.Errorf("pack %d of group %v: %w", ref.Number, ref.Group, err)
	}
	s.keep(&parsed)
	return &parsed, nil
}

// describes reports whether a manifest is that of a pack.
func describes(m *group.Manifest, ref group.PackRef) bool {
	return m.Group == ref.Group && m.Number == ref.Number && m.Class == ref.Class && m.Coding == ref.Coding
}

// keep remembers a manifest that was checked.
func (s *Swarm) keep(m *group.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.manifests) >= maxManifests {
		clear(s.manifests)
	}
	s.manifests[packKey{m.Group, m.Number}] = m
}

// askManifest asks the holders of a group for the manifest of a pack, two at a
// time, those that failed lately last. While at it, it takes the manifests of
// the whole group.
func (s *Swarm) askManifest(ctx context.Context, ref group.PackRef) (*group.Manifest, error) {
	for _, ask := range []bool{false, true} {
		from, err := s.holdersOf(ctx, ref, ask)
		if err != nil {
			return nil, err
		}
		if m := s.firstManifest(ctx, ref, s.inOrder(from)); m != nil {
			return m, nil
		}
		if s.c.Finder == nil || ctx.Err() != nil {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("manifest of pack %d of group %v: %w", ref.Number, ref.Group, ErrUnreachable)
}

func (s *Swarm) firstManifest(ctx context.Context, ref group.PackRef, order []group.PeerKey) *group.Manifest {
	ctx, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	found := make(chan *group.Manifest)
	next := 0
	running := 0
	start := func() {
		if next >= len(order) {
			return
		}
		p := order[next]
		next++
		running++
		go func() {
			m := s.manifestFrom(ctx, p, ref)
			select {
			case found <- m:
			case <-ctx.Done():
			}
		}()
	}
	start()
	for running > 0 {
		hedge := time.NewTimer(s.c.Hedge)
		select {
		case m := <-found:
			running--
			if m != nil {
				hedge.Stop()
				return m
			}
			start()
		case <-hedge.C:
			start()
		case <-ctx.Done():
			hedge.Stop()
			return nil
		}
		hedge.Stop()
	}
	return nil
}

// manifestFrom asks one holder for all manifests of a group, and keeps them. It
// returns the one of the pack, nil if the holder does not have it.
func (s *Swarm) manifestFrom(ctx context.Context, p group.PeerKey, ref group.PackRef) *group.Manifest {
	var all group.Bitmap
	for i := range all {
		all[i] = 0xff
	}
	words, err := s.c.Holders.Manifests(ctx, p, ref.Group, all)
	var got []*group.Manifest
	if err == nil {
		got, err = checked(words, ref.Group)
	}
	if ctx.Err() == nil || err == nil {
		s.note(p, err, 0)
	}
	var out *group.Manifest
	for _, m := range got {
		if m.Class != ref.Class || m.Coding != ref.Coding {
			continue
		}
		s.keep(m)
		if m.Number == ref.Number {
			out = m
		}
	}
	return out
}

// checked parses the manifests of a group. It fails with client.ErrLied if one
// of them is not what it should be.
func checked(words map[uint16][]byte, id group.ID) ([]*group.Manifest, error) {
	out := make([]*group.Manifest, 0, len(words))
	for n, word := range words {
		m, err := group.ParseManifest(word)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", client.ErrLied, err)
		}
		if m.Group != id || m.Number != n {
			return nil, fmt.Errorf("%w: manifest of another pack", client.ErrLied)
		}
		out = append(out, &m)
	}
	return out, nil
}

// inOrder lists holders, those that failed lately last.
func (s *Swarm) inOrder(from holders) []group.PeerKey {
	var out []group.PeerKey
	for slot := range uint8(erasure.MaxShards) {
		out = append(out, from.of[slot]...)
	}
	slices.SortStableFunc(out, func(a, b group.PeerKey) int { return rank(s.shuns(a)) - rank(s.shuns(b)) })
	return out
}

func rank(shunned bool) int {
	if shunned {
		return 1
	}
	return 0
}

// Alive reports whether a peer did not fail lately.
func (s *Swarm) Alive(p group.PeerKey) bool { return !s.shuns(p) }
