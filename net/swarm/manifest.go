package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"skep/chunker/group"
	"skep/net/client"
)

const maxManifests = 8192

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

// askManifest asks the holders of a group for the manifest of a pack, a few at a
// time, those that failed lately last, and those that are found by asking
// around. While at it, it takes the manifests of the whole group.
func (s *Swarm) askManifest(ctx context.Context, ref group.PackRef) (*group.Manifest, error) {
	timed, cancel := context.WithTimeout(ctx, s.c.Timeout)
	defer cancel()
	a := &manifestAsking{s: s, ref: ref, known: map[group.PeerKey]uint8{}, may: map[uint8]int{}, answers: make(chan manifestAnswer)}
	a.line(named(ref))
	around := s.around(ref)
	defer around.leave()
	m, err := a.run(timed, around)
	if ended(err) && ctx.Err() == nil { // they were too slow
		err = a.unreachable()
	}
	return m, err
}

// manifestAsking is a manifest on its way.
type manifestAsking struct {
	s       *Swarm
	ref     group.PackRef
	known   map[group.PeerKey]uint8 // which slot they have
	may     map[uint8]int           // holders of each slot known that have not said that they lack it
	queue   []group.PeerKey
	running int
	rounds  int
	answers chan manifestAnswer
}

// manifestAnswer is what came of asking one holder.
type manifestAnswer struct {
	from  group.PeerKey
	m     *group.Manifest // nil from one that does not give it
	lacks bool            // it says that it does not have it
}

func (a *manifestAsking) run(ctx context.Context, around *around) (*group.Manifest, error) {
	hedge := time.NewTimer(a.s.c.Hedge)
	defer hedge.Stop()
	a.ask(ctx, 1)
	for {
		if a.running+len(a.queue) == 0 {
			if around.over() {
				return nil, a.missing(around)
			}
			around.begin()
		}
		select {
		case got := <-a.answers:
			a.running--
			if got.m != nil {
				return got.m, nil
			}
			a.may[a.known[got.from]] -= rank(got.lacks)
			a.ask(ctx, 1)
		case <-hedge.C: // twice as many each time
			a.ask(ctx, 1<<min(a.rounds, 5))
			a.rounds++
		case <-around.due():
			around.begin()
		case <-around.news():
			if a.line(around.holders()) || around.goesOn() {
				client.Tell(ctx, 0) // we are not at the end
			}
			a.ask(ctx, max(0, 2-a.running))
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		hedge.Reset(a.s.c.Hedge)
	}
}

// line puts those to be asked in order that were not in it before, and reports
// whether there are any.
func (a *manifestAsking) line(from holders) (grew bool) {
	for slot := range a.ref.Coding.N {
		for _, p := range from.of[slot] {
			if _, known := a.known[p]; !known {
				a.known[p] = slot
				a.may[slot]++
				a.queue = append(a.queue, p)
				grew = true
			}
		}
	}
	slices.SortStableFunc(a.queue, func(x, y group.PeerKey) int { return rank(a.s.shuns(x)) - rank(a.s.shuns(y)) })
	return grew
}

// ask asks the next n in line.
func (a *manifestAsking) ask(ctx context.Context, n int) {
	for ; n > 0 && len(a.queue) > 0 && a.running < askedAtOnce; n-- {
		p := a.queue[0]
		a.queue = a.queue[1:]
		a.running++
		go func() {
			speaking, cancel := unlessMute(ctx, muteTime)
			defer cancel()
			m, lacks := a.s.manifestFrom(speaking, p, a.ref)
			select {
			case a.answers <- manifestAnswer{p, m, lacks}:
			case <-ctx.Done():
			}
		}()
	}
}

// missing says why there is no manifest, after everybody was asked: nobody knows the
// group, or none of those who should have it gave it. Who keeps a shard of a pack has its
// manifest: it is lost where so few may have that as may have too few shards.
func (a *manifestAsking) missing(around *around) error {
	if len(a.known) == 0 {
		return around.none()
	}
	left := a.ref.Coding.N - uint8(len(a.may))
	for _, may := range a.may {
		left += uint8(min(may, 1))
	}
	if int(left)+around.holders().silent < int(a.ref.Coding.K) {
		return fmt.Errorf("manifest of pack %d of group %v: %w", a.ref.Number, a.ref.Group, ErrLost)
	}
	return a.unreachable()
}

func (a *manifestAsking) unreachable() error {
	return fmt.Errorf("manifest of pack %d of group %v: %w", a.ref.Number, a.ref.Group, ErrUnreachable)
}

func rank(shunned bool) int {
	if shunned {
		return 1
	}
	return 0
}

// manifestFrom asks one holder for all manifests of a group, and keeps them. It
// returns the one of the pack, nil if the holder does not give it, and whether it says
// that it lacks it.
func (s *Swarm) manifestFrom(ctx context.Context, p group.PeerKey, ref group.PackRef) (out *group.Manifest, lacks bool) {
	var all group.Bitmap
	for i := range all {
		all[i] = 0xff
	}
	words, err := s.c.Holders.Manifests(ctx, p, ref.Group, all)
	var got []*group.Manifest
	if err == nil {
		got, err = checked(words, ref.Group)
	}
	if context.Cause(ctx) == errSilence && err != nil {
		err = client.ErrUnreachable
	}
	s.note(p, err, 0)
	for _, m := range got {
		if m.Class != ref.Class || m.Coding != ref.Coding {
			continue
		}
		s.keep(m)
		if m.Number == ref.Number {
			out = m
		}
	}
	return out, out == nil && (err == nil || errors.Is(err, client.ErrAbsent))
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
