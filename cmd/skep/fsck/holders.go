package fsck

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"skep/cache/blocks"
	"skep/cache/readthrough"
	"skep/chunker/dag"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
	"skep/cmd/skep/say"
	"skep/net/client"
	skephost "skep/net/host"
	"skep/repair/audit"
)

// Holders is how holders are asked; *client.Client is one.
type Holders interface {
	Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error)
	Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error
}

// survey is what the holders of all packs have shown that they have.
type survey struct {
	packs map[readthrough.PackName]blocks.Pack
	of    map[group.ID]group.Group

	mu     sync.Mutex                   // guards the next two
	live   map[readthrough.PackName]int // shards of a pack that were shown
	unreal map[group.PeerKey]claimed    // by holder
}

// claimed are shards that a holder says to have, and could not show.
type claimed struct {
	shards int
	err    error // of one of them
}

// askedAtOnce is how many holders are asked at the same time.
const askedAtOnce = 16

// askHolders asks every holder of every group what it has, and to show some leaves
// of each shard, which nobody chose.
func (c *checker) askHolders(ctx context.Context) error {
	s, err := c.newSurvey()
	if err != nil {
		return err
	}
	slots := 0
	for _, g := range s.of {
		slots += len(g.Slots)
	}
	c.step("asking holders", int64(slots))
	var asking sync.WaitGroup
	room := make(chan struct{}, askedAtOnce)
	for _, g := range s.of {
		for slot, holder := range g.Slots {
			room <- struct{}{}
			asking.Go(func() {
				defer func() { c.did(1); <-room }()
				if !holder.IsZero() {
					c.askHolder(ctx, s, g, uint8(slot), holder)
				}
			})
		}
	}
	asking.Wait()
	c.survey = s
	c.judge(s)
	return ctx.Err()
}

// count has it known which packs are needed, where the drive was recovered a short time
// ago: of others, holders need not have anything.
func (c *checker) count(ctx context.Context) error {
	c.step("counting what is needed", 1)
	if err := c.drive.Count(ctx); err != nil && ctx.Err() == nil {
		c.problem("account of what is stored", fmt.Errorf("which packs are needed cannot be counted, so all are asked for: %w", err))
	}
	return ctx.Err()
}

// newSurvey lists the packs that are needed.
func (c *checker) newSurvey() (*survey, error) {
	table := c.drive.Table
	groups, err := table.Groups()
	if err != nil {
		return nil, err
	}
	counted, err := table.Counted()
	if err != nil {
		return nil, err
	}
	s := &survey{packs: map[readthrough.PackName]blocks.Pack{}, of: map[group.ID]group.Group{},
		live: map[readthrough.PackName]int{}, unreal: map[group.PeerKey]claimed{}}
	for _, g := range groups {
		s.of[g.ID] = g
	}
	err = table.Packs(func(p blocks.Pack) bool {
		if _, ok := s.of[p.Group]; ok && (p.Live > 0 || !counted) {
			s.packs[readthrough.PackName{Group: p.Group, Number: p.Number}] = p
		}
		return true
	})
	return s, err
}

// askHolder asks the holder of a slot for its statement, and has it show each shard
// that it says to have. Of one that does not answer nothing counts as there.
func (c *checker) askHolder(ctx context.Context, s *survey, g group.Group, slot uint8, holder group.PeerKey) {
	st, err := twice(func() (group.Statement, error) { return c.drive.Holders.Statement(ctx, holder, g.ID) })
	if err != nil || st.Slot != slot {
		return
	}
	for n := range g.Packs {
		name := readthrough.PackName{Group: g.ID, Number: n}
		if p, ok := s.packs[name]; ok && st.Held.Has(n) {
			s.shown(name, holder, c.show(ctx, p, g, slot, holder))
		}
	}
}

// show asks a holder for leaves of a shard, and checks them.
func (c *checker) show(ctx context.Context, p blocks.Pack, g group.Group, slot uint8, holder group.PeerKey) error {
	ref := group.PackRef{Group: g.ID, Number: p.Number, Class: g.Class, Coding: g.Coding, Slots: g.Slots, Manifest: p.Manifest}
	m, err := c.drive.Manifest(ctx, ref)
	if err != nil {
		return err
	}
	_, err = twice(func() (struct{}, error) {
		count := min(audit.Samples, erasure.Leaves(m.ShardSize()))
		return struct{}{}, c.drive.Holders.Prove(ctx, holder, m, slot, erasure.Nonce(secret.New()), count)
	})
	return err
}

// twice asks a second time who did not answer: it may just have been busy.
func twice[T any](ask func() (T, error)) (T, error) {
	v, err := ask()
	if errors.Is(err, client.ErrUnreachable) {
		v, err = ask()
	}
	return v, err
}

// shown takes note of how it went when a holder was to show a shard.
func (s *survey) shown(name readthrough.PackName, holder group.PeerKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.live[name]++
	case errors.Is(err, client.ErrLied), errors.Is(err, client.ErrAbsent):
		u := s.unreal[holder]
		s.unreal[holder] = claimed{u.shards + 1, err}
	}
}

// judge counts the packs with too few shards, and names the holders that could not
// show what they say to have. What lacks shards and can be read is left to repair; what
// cannot is a problem, also if it is here: the words alone would not bring it back now.
func (c *checker) judge(s *survey) {
	for name := range s.packs {
		coding := s.of[name.Group].Coding
		c.r.Packs++
		if s.live[name] < int(coding.N) {
			c.r.PacksBelowTarget++
		}
		if s.live[name] < int(coding.K) {
			c.r.PacksLost++
		}
	}
	if c.r.PacksLost > 0 {
		c.problem("what holders have", fmt.Errorf("%d of %s cannot be rebuilt from it now", c.r.PacksLost, say.Count(c.r.Packs, "pack")))
	}
	for _, holder := range slices.SortedFunc(maps.Keys(s.unreal), func(a, b group.PeerKey) int { return bytes.Compare(a[:], b[:]) }) {
		u := s.unreal[holder]
		c.r.ShardsUnreal += u.shards
		c.problem("holder "+skephost.ID(holder).String(), fmt.Errorf("does not have %d of the shards that it says to have, or has them damaged: %w", u.shards, u.err))
	}
}

// redundancy counts a file of which packs have too few shards. Enough is false, and
// the file named, if it cannot be read from what there is.
func (c *checker) redundancy(ctx context.Context, path string, f dag.File) (enough bool) {
	if c.survey == nil {
		return true
	}
	packs := c.drive.Reader.Packs()
	if err := packs.File(ctx, f); err != nil {
		return true // what reads the content tells why
	}
	below, lost, missing := 0, 0, 0
	for name := range packs.All() {
		live, coding := c.survey.live[name], c.survey.of[name.Group].Coding
		if live < int(coding.N) {
			below++
		}
		if need := int(coding.K); live < need {
			lost++
			missing += need - live
		}
	}
	if below > 0 {
		c.r.FilesBelowTarget++
	}
	if lost > 0 {
		c.r.FilesLost++
		c.problem(path, fmt.Errorf("%d of its %d packs cannot be rebuilt from what holders have now: %d more shards are needed", lost, len(packs.All()), missing))
	}
	return lost == 0
}
