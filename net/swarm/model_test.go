package swarm

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"skep/chunker/group"
)

// trial is a pack, how its holders behave, and what is asked of them.
type trial struct {
	pack     testPack
	moods    []mood // by peer: the holders, then those that hold the same slot
	finder   bool   // the second holders can be found
	table    bool   // the table names the first ones
	manifest bool   // and the manifest
	drip     time.Duration
	ranges   [][2]int
}

func drawTrial(t *rapid.T) (c trial) {
	k := rapid.IntRange(1, 4).Draw(t, "k")
	n := k + rapid.IntRange(0, 4).Draw(t, "parity")
	c.pack = makePack(nopTB{}, testClass, k, n, 0)
	c.moods = make([]mood, 2*n)
	for i := range c.moods {
		c.moods[i] = mood(rapid.IntRange(0, int(moods)-1).Draw(t, "mood"))
	}
	c.finder = rapid.Bool().Draw(t, "finder")
	c.table = rapid.Bool().Draw(t, "table")
	c.manifest = rapid.Bool().Draw(t, "manifest")
	c.drip = rapid.SampledFrom([]time.Duration{0, time.Second, 6 * time.Second}).Draw(t, "drip")
	for range rapid.IntRange(1, 3).Draw(t, "ranges") {
		off := rapid.IntRange(0, testClass.Size()).Draw(t, "off")
		c.ranges = append(c.ranges, [2]int{off, rapid.IntRange(0, testClass.Size()-off).Draw(t, "n")})
	}
	return c
}

// nopTB is for makePack, which does not fail with codings that are valid.
type nopTB struct{ testing.TB }

func (nopTB) Helper() {}

// good is how many slots have a holder that can be found and answers.
func (c *trial) good() (n int) {
	for i := range c.pack.shards {
		if c.table && answers(c.moods[i]) || c.finder && answers(c.moods[i+len(c.pack.shards)]) {
			n++
		}
	}
	return n
}

func answers(m mood) bool { return m == right || m == full || m == twoFaced }

func (c *trial) swarm() *swarmOf {
	n := len(c.pack.shards)
	f := newSwarmOf(2 * n)
	f.drip = c.drip
	f.hold(c.pack)
	for i := range n {
		f.holdAt(c.pack, n+i, uint8(i), c.pack.shards[i])
		if c.finder {
			f.found[c.pack.Group] = append(f.found[c.pack.Group], peerKey(n+i))
		}
	}
	for i, m := range c.moods {
		f.set(m, i)
	}
	return f
}

func (c *trial) run(t *testing.T) error {
	f := c.swarm()
	s := New(Config{Holders: f, Finder: f, Timeout: time.Minute})
	ref := c.pack.PackRef
	if !c.table {
		ref.Slots = nil
	}
	if !c.manifest {
		ref.Manifest = nil
	}
	for _, r := range c.ranges {
		begin := time.Now()
		got, err := s.ReadRange(t.Context(), ref, r[0], r[1])
		if err := c.judge(got, err, c.pack.bytes[r[0]:][:r[1]], time.Since(begin)); err != nil {
			return fmt.Errorf("range %d+%d: %w", r[0], r[1], err)
		}
		want := c.pack.bytes[r[0]:][:r[1]]
		begin = time.Now()
		got, _, err = s.ReadKnown(t.Context(), ref, r[0], r[1], nil, func(b []byte) bool { return bytes.Equal(b, want) })
		if err := c.judge(got, err, want, time.Since(begin)); err != nil {
			return fmt.Errorf("known range %d+%d: %w", r[0], r[1], err)
		}
	}
	_, shards, err := s.ReadShards(t.Context(), ref)
	if err == nil {
		err = c.same(shards)
	} else if known(err) {
		err = nil
	}
	return err
}

// judge says what is wrong with an answer: it is the right bytes, or one of the
// known errors, and an error only if fewer than k slots answer.
func (c *trial) judge(got []byte, err error, want []byte, took time.Duration) error {
	switch {
	case took > time.Minute+slowTime(len(want)):
		return fmt.Errorf("took %v", took)
	case err == nil && !bytes.Equal(got, want):
		return errors.New("wrong bytes")
	case err != nil && !known(err):
		return err
	case err != nil && c.good() >= int(c.pack.Coding.K):
		return fmt.Errorf("%d slots answer, and yet: %w", c.good(), err)
	case errors.Is(err, ErrLost) && c.left() >= int(c.pack.Coding.K):
		return fmt.Errorf("%d may be left, and yet: %w", c.left(), err)
	}
	return nil
}

// left is how many slots have a holder that may have its shard.
func (c *trial) left() (n int) {
	lost := func(m mood) bool { return m == absent || m == lying || m == rotten }
	for i := range c.pack.shards {
		first, second := c.moods[i], c.moods[i+len(c.pack.shards)]
		if c.table && !lost(first) || c.finder && !lost(second) {
			n++
		}
	}
	return n
}

func (c *trial) same(shards [][]byte) error {
	for i, shard := range shards {
		if shard != nil && !bytes.Equal(shard, c.pack.shards[i]) {
			return fmt.Errorf("shard %d is wrong", i)
		}
	}
	return nil
}

func known(err error) bool {
	return errors.Is(err, ErrUnreachable) || errors.Is(err, ErrLost) || errors.Is(err, ErrAbsent)
}

// Whatever holders do, a read ends in time, with the right bytes or an error
// that says why.
func TestReadIsRightOrFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawTrial(rt)
		var err error
		synctest.Test(t, func(t *testing.T) { err = c.run(t) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

// Whatever holders do, those that are said to have stored their shard have it.
func TestStoreIsRightOrFails(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		c := drawTrial(rt)
		enough := rapid.IntRange(1, len(c.pack.shards)).Draw(rt, "enough")
		var err error
		synctest.Test(t, func(t *testing.T) { err = c.store(t, enough) })
		if err != nil {
			rt.Fatal(err)
		}
	})
}

func (c *trial) store(t *testing.T, enough int) error {
	f := newSwarmOf(len(c.moods))
	for i, m := range c.moods {
		f.set(m, i)
		f.peers[peerKey(i)].strict = i%2 == 0
	}
	s := New(Config{Holders: f})
	g := group.Group{ID: c.pack.Group, Class: c.pack.Class, Coding: c.pack.Coding, Slots: c.pack.Slots}
	acked, err := s.Store(t.Context(), g, c.pack.lease, c.pack.Manifest, c.pack.shards, enough)
	takes := 0
	for i := range c.pack.shards {
		takes += rank(slices.Contains([]mood{right, absent, twoFaced, rotten, stalling, halting}, c.moods[i]))
		_, has := f.peers[peerKey(i)].shards[shardKey{packKey{c.pack.Group, 0}, uint8(i)}]
		if acked.Has(i) && !has {
			return fmt.Errorf("slot %d is acknowledged and empty", i)
		}
	}
	switch {
	case acked.Count() != takes:
		return fmt.Errorf("%d acknowledged, %d take it", acked.Count(), takes)
	case (err == nil) != (takes >= enough) || err != nil && !errors.Is(err, ErrTooFew):
		return fmt.Errorf("%d take it, %d are enough: %w", takes, enough, err)
	}
	return nil
}
