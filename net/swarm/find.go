package swarm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
)

// foundSlots are holders that were found by asking around.
type foundSlots struct {
	slots  map[uint8]group.PeerKey
	silent int // those that did not answer, whatever their slots are
	at     time.Time
}

const (
	maxFound    = 256
	foundFor    = time.Minute
	findHolders = 64
)

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
