package daemon

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"skep/cache/readerr"
	"skep/cache/writeback"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/place"
	"skep/net/swarm"
	"skep/net/wire"
	"skep/repair/health"
	"skep/repair/plan"
)

// sink joins write-back to the swarm: it is the writeback.Sink of a drive, with
// coding and holders by the planner.
type sink struct {
	n *network

	mu     sync.Mutex // guards all below
	told   yardstick  // of what is stored with those that tell of room
	inLast yardstick  // of metadata that goes to the last part of what is offered, too
	made   time.Time
	seen   uint64 // revision of the directory of peers that it was made from

	crammed time.Time // when holders had no room for metadata last

	free      int64 // what could be stored, with the peers that are silent now, too
	freeSeen  uint64
	freePeers int
}

// yardstick is what a coding is judged by: the best one with some peers.
type yardstick struct {
	from []place.Candidate
	plan plan.Plan                     // of these
	best map[erasure.Class]plan.Choice // with those of them that have room, as far as anybody asked
}

func newYardstick(from []place.Candidate) yardstick {
	return yardstick{from, plan.Of(from), map[erasure.Class]plan.Choice{}}
}

// newInLast is that of metadata, for which the last part of what peers offer counts, too,
// of which they do not tell.
func newInLast(takers []place.Candidate) yardstick {
	from := slices.Clone(takers)
	for i := range from {
		from[i].Free = max(from[i].Free, wire.SmallShard)
	}
	return newYardstick(from)
}

// judge says whether a coding is weak, and what its chance of loss is.
func (y yardstick) judge(class erasure.Class, coding erasure.Coding) (weak bool, loss float64) {
	best, known := y.best[class]
	if !known {
		best, _ = plan.Best(class, y.from)
		y.best[class] = best
	}
	return plan.Weak(coding, best, y.plan.Availability), plan.LossOf(coding, y.plan.Availability)
}

// planFor is how long a plan serves while more becomes known of peers.
const planFor = 200 * time.Millisecond

// candidates are the peers that may hold slots: they answered, offer something, take
// new groups, and are not barred for a lie.
func (n *network) candidates() []place.Candidate {
	var out []place.Candidate
	for _, p := range n.peers.List() {
		if n.usable(p) && !n.swarm.Crowded(p.Key) {
			out = append(out, p.Candidate(0))
		}
	}
	return out
}

// takers are the candidates with whom something is stored that is stored now.
func (n *network) takers() []place.Candidate {
	all := n.candidates()
	return plan.Among(all, slices.DeleteFunc(slices.Clone(all), func(c place.Candidate) bool { return !n.answers(c.Key) }))
}

// answers reports whether a peer did not fail to answer the last question.
func (n *network) answers(key group.PeerKey) bool {
	p, ok := n.peers.Get(key)
	return !ok || p.Misses == 0
}

// there is how many holders of a group answer, as far as is known. While nobody answers
// at all, that is not held against them.
func (n *network) there(g group.Group) (count int) {
	if !health.Online(n.peers.List(), n.self, time.Now()) {
		return int(g.Coding.N)
	}
	for _, key := range g.Slots {
		p, _ := n.peers.Get(key)
		count += one(!key.IsZero() && p.Misses == 0 && p.IsThere())
	}
	return count
}

func (n *network) usable(p peers.Peer) bool {
	return p.Key != n.self && !p.HelloAt.IsZero() && p.Offered > 0 && p.IsThere() && n.swarm.Alive(p.Key)
}

// usables is how many peers take leases and records.
func (n *network) usables() (count int) {
	for _, p := range n.peers.List() {
		if n.usable(p) {
			count++
		}
	}
	return count
}

// anybody reports whether there is a peer that takes leases and records.
func (n *network) anybody() bool { return slices.ContainsFunc(n.peers.List(), n.usable) }

// current returns the plan for the swarm as it is now.
func (s *sink) current() plan.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	return s.told.plan
}

// renewed returns the plan for the swarm as it is at this moment.
func (s *sink) renewed() plan.Plan {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.made = time.Time{}
	s.refresh()
	return s.told.plan
}

// refresh makes the plan anew if it is not that of the swarm as it is now. s.mu is held.
func (s *sink) refresh() {
	revision := s.n.peers.Revision()
	if revision == s.seen && !s.made.IsZero() && time.Since(s.made) < 10*planFor || time.Since(s.made) < planFor {
		return
	}
	takers := s.n.takers()
	s.told, s.inLast = newYardstick(plan.WithRoom(takers, erasure.MinShard)), newInLast(takers)
	s.seen, s.made = revision, time.Now()
}

// weak reports whether packs of a class and kind in a coding are clearly less safe than
// they would be with the peers that are there now.
func (s *sink) weak(class erasure.Class, kind group.Kind, coding erasure.Coding) bool {
	weak, _ := s.judge(class, kind, coding)
	return weak
}

// judge is the plan.Judge of the swarm as it is now. Of metadata nothing is weak that Plan
// would plan again, or it would be stored again and again.
func (s *sink) judge(class erasure.Class, kind group.Kind, coding erasure.Coding) (weak bool, loss float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refresh()
	if kind == group.Metadata && !s.isCrammed() {
		return s.inLast.judge(class, coding)
	}
	return s.told.judge(class, coding)
}

// Plan implements writeback.Sink. Where few or none tell of room, so that it would be
// clearly less safe, metadata goes to the last part of what holders offer, of which they do
// not tell; but not for a while after that was full, too, if some do tell of room.
func (s *sink) Plan(_ context.Context, class erasure.Class, kind group.Kind) (erasure.Coding, []group.PeerKey, error) {
	from, rnd := s.n.takers(), rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64()))
	coding, holders, err := plan.Slots(class, from, rnd)
	if kind != group.Metadata || err != nil && !errors.Is(err, place.ErrTooFew) {
		return coding, holders, tooFew(err)
	}
	inLast := newInLast(from)
	if weak, _ := inLast.judge(class, coding); err != nil || weak && !s.avoidsLast() {
		coding, holders, err = plan.Slots(class, inLast.from, rnd)
	}
	return coding, holders, tooFew(err)
}

// crammedFor is for how long metadata goes to those alone that tell of room, after others
// had none for it.
const crammedFor = 10 * time.Minute

// avoidsLast reports whether that is so.
func (s *sink) avoidsLast() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.isCrammed()
}

// isCrammed is avoidsLast, while s.mu is held.
func (s *sink) isCrammed() bool {
	return !s.crammed.IsZero() && time.Since(s.crammed) < crammedFor
}

// noteCrammed takes note of how a group of metadata was told or given something.
func (s *sink) noteCrammed(g group.Group, err error) {
	if g.Kind != group.Metadata || !errors.Is(err, client.ErrFull) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.crammed = time.Now()
}

// Lease implements writeback.Sink.
func (s *sink) Lease(ctx context.Context, g group.Group, lease []byte) (group.SlotSet, error) {
	set, err := s.n.swarm.Lease(ctx, g, lease)
	s.noteCrammed(g, err)
	if s.n.survey != nil && g.Dead != (group.Bitmap{}) {
		s.n.survey.Soon(g.Slots) // they have more room now than they said
	}
	return set, tooFew(err)
}

// Store implements writeback.Sink.
func (s *sink) Store(ctx context.Context, g group.Group, lease, manifest []byte, shards [][]byte) (group.SlotSet, error) {
	left, spared := s.sparing(g, len(shards[0]))
	set, err := s.n.swarm.Store(ctx, left, lease, manifest, shards, plan.Enough(g.Coding))
	s.noteCrammed(g, err)
	if spared && errors.Is(err, swarm.ErrTooFew) {
		return set, fmt.Errorf("%w: %w", writeback.ErrNoRoom, err)
	}
	return set, tooFew(err)
}

// sparing is a group without those holders that have room for small shards alone, if
// these are of content: what they keep is for metadata, without which nothing can be
// deleted. They are asked anew how much they have.
func (s *sink) sparing(g group.Group, size int) (left group.Group, spared bool) {
	if g.Kind != group.Content || size > wire.SmallShard {
		return g, false
	}
	var full []group.PeerKey
	g.Slots = slices.Clone(g.Slots)
	for i, k := range g.Slots {
		if p, known := s.n.peers.Get(k); known && !p.HelloAt.IsZero() && p.Free < int64(size) {
			full, g.Slots[i] = append(full, k), group.PeerKey{}
		}
	}
	if len(full) > 0 && s.n.survey != nil {
		s.n.survey.Soon(full)
	}
	return g, len(full) > 0
}

func tooFew(err error) error {
	if errors.Is(err, client.ErrFull) || errors.Is(err, place.ErrTooFew) {
		return fmt.Errorf("%w: %w", writeback.ErrNoRoom, err)
	}
	if errors.Is(err, swarm.ErrTooFew) {
		return fmt.Errorf("%w: %w", writeback.ErrTooFew, err)
	}
	return err
}

// source is the readthrough.Source of a drive.
type source struct{ n *network }

// ReadRange implements readthrough.Source.
func (s source) ReadRange(ctx context.Context, ref group.PackRef, off, n int) ([]byte, error) {
	b, _, err := s.ReadKnown(ctx, ref, off, n, nil, nil)
	return b, err
}

// ReadKnown implements readthrough.Source.
func (s source) ReadKnown(ctx context.Context, ref group.PackRef, off, n int, room func(int) []byte, fits func([]byte) bool) ([]byte, bool, error) {
	s.n.first.wait(ctx) // a drive that was just mounted is not told to be out of reach
	b, fitted, err := s.n.swarm.ReadKnown(ctx, ref, off, n, room, fits)
	return b, fitted, unread(err)
}

// unread makes an error of the swarm one of package readerr.
func unread(err error) error {
	switch {
	case errors.Is(err, swarm.ErrLost):
		return fmt.Errorf("%w: %w", readerr.ErrLost, err)
	case errors.Is(err, swarm.ErrAbsent):
		return fmt.Errorf("%w: %w", readerr.ErrAbsent, err)
	case errors.Is(err, swarm.ErrUnreachable):
		return fmt.Errorf("%w: %w", readerr.ErrUnreachable, err)
	}
	return err
}
