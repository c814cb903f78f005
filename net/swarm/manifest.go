package swarm

import (
	"context"
	"fmt"
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
