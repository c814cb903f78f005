package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"skep/cache/blocks"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/net/client"
)

// survey is what the holders of all packs say that they have.
type survey struct {
	live map[packName]int // shards of a pack that are there
	need map[packName]int // shards that it needs to be read
	full map[packName]int // shards that it should have
}

// askedAtOnce is how many holders are asked for a statement at the same time.
const askedAtOnce = 16

// askHolders asks every holder of every group what it has.
func (c *checker) askHolders(ctx context.Context) error {
	table := c.d.drive.table
	groups, err := table.Groups()
	if err != nil {
		return err
	}
	counted, err := table.Counted()
	if err != nil {
		return err
	}
	s := &survey{live: map[packName]int{}, need: map[packName]int{}, full: map[packName]int{}}
	of := map[group.ID]group.Group{}
	for _, g := range groups {
		of[g.ID] = g
	}
	err = table.Packs(func(p blocks.Pack) bool {
		if g, ok := of[p.Group]; ok && (p.Live > 0 || !counted) {
			name := packName{p.Group, p.Number}
			s.live[name], s.need[name], s.full[name] = 0, int(g.Coding.K), int(g.Coding.N)
		}
		return true
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex // guards s.live
	var asking sync.WaitGroup
	room := make(chan struct{}, askedAtOnce)
	for _, g := range groups {
		for slot, holder := range g.Slots {
			if holder.IsZero() {
				continue
			}
			room <- struct{}{}
			asking.Go(func() {
				defer func() { <-room }()
				st, err := c.d.net.client.Statement(ctx, holder, g.ID)
				if errors.Is(err, client.ErrUnreachable) {
					st, err = c.d.net.client.Statement(ctx, holder, g.ID) // it may just have been busy
				}
				if err != nil || int(st.Slot) != slot {
					return // it has nothing, as far as can be told
				}
				mu.Lock()
				defer mu.Unlock()
				for n := range g.Packs {
					if _, ok := s.need[packName{g.ID, n}]; ok && st.Held.Has(n) {
						s.live[packName{g.ID, n}]++
					}
				}
			})
		}
	}
	asking.Wait()
	c.survey = s
	for name, need := range s.need {
		c.r.Packs++
		if s.live[name] < s.full[name] {
			c.r.PacksBelowTarget++
		}
		if s.live[name] < need {
			c.r.PacksLost++
		}
	}
	return ctx.Err()
}

// redundancy counts a file of which packs have too few shards, and names it if
// they have fewer than it takes to read them.
func (c *checker) redundancy(ctx context.Context, path string, f dag.File) {
	if c.survey == nil {
		return
	}
	packs := packsOf{d: c.d, all: map[packName]bool{}}
	if err := packs.file(ctx, f); err != nil {
		return // what reads the content tells why
	}
	below, lost, missing := 0, 0, 0
	for name := range packs.all {
		live, full := c.survey.live[name], c.survey.full[name]
		if live >= full {
			continue
		}
		below++
		if need := c.survey.need[name]; live < need {
			lost++
			missing += need - live
		}
	}
	if below > 0 {
		c.r.FilesBelowTarget++
	}
	if lost > 0 {
		c.r.FilesLost++
		c.problem(path, fmt.Errorf("%d of its %d packs cannot be rebuilt from what holders have now: %d more shards are needed", lost, len(packs.all), missing))
	}
}
