package simnet

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"skep/net/client"
	"skep/net/dht"
	"skep/test/storetest"
)

const day = 24 * time.Hour

// pass lets time go by, with connections that do not last.
func pass(s *Swarm, d time.Duration) {
	const step = 3 * time.Minute
	for end := time.Now().Add(d); time.Now().Before(end); {
		time.Sleep(step)
		s.Hangup()
	}
}

// withoutOwner is how many days the record has to do without its owner, nine times
// as long as the directory remembers it; a year where SKEP_SOAK is set.
func withoutOwner() int {
	if os.Getenv("SKEP_SOAK") != "" {
		return 365
	}
	return 18
}

// abandoned is a group whose owner is gone: k of its holders are enough to read
// it.
type abandoned struct {
	owner *storetest.Owner
	packs []storetest.Pack
	end   time.Time
}

// abandon places two packs of a group with three holders, 2 of 3, and renews the
// lease once.
func abandon(t *testing.T, owner *Peer, holders []*Peer, end time.Time) *abandoned {
	t.Helper()
	a := &abandoned{owner: storetest.NewOwner(9, 17, 2, 3), end: end}
	a.packs = []storetest.Pack{a.owner.Pack(t, 0), a.owner.Pack(t, 1)}
	_, brief := a.owner.Lease(1, time.Now().Add(day).Unix())
	_, lease := a.owner.Lease(2, end.Unix(), storetest.Dead(7))
	for slot, h := range holders {
		for _, word := range [][]byte{brief, lease, brief} {
			if _, err := owner.Client.Admit(t.Context(), h.Key, word, uint8(slot)); err != nil {
				t.Fatal(err)
			}
		}
		for _, p := range a.packs {
			if err := owner.Client.Put(t.Context(), h.Key, p.Word, uint8(slot), p.Shards[slot]); err != nil {
				t.Fatal(err)
			}
		}
	}
	return a
}

// check has a stranger, who knows nothing but the group's id, find the holders
// that are left, and from any of them lease, manifests and shards.
func (a *abandoned) check(t *testing.T, stranger *Peer, left int) {
	t.Helper()
	ctx := t.Context()
	found, err := stranger.DHT.FindHolders(ctx, a.owner.ID, 10)
	if err != nil {
		t.Fatal(err)
	}
	answer := 0
	for _, h := range found {
		st, err := stranger.Client.Statement(ctx, h, a.owner.ID)
		if errors.Is(err, client.ErrUnreachable) {
			continue // gone, and not yet forgotten
		}
		if err != nil || st.Held.Count() != len(a.packs) || st.Lease != 2 {
			t.Fatalf("statement: %+v, %v", st, err)
		}
		l, _, err := stranger.Client.Lease(ctx, h, a.owner.ID)
		if err != nil || l.Until != a.end.Unix() || !l.Dead.Has(7) {
			t.Fatalf("lease: %+v, %v", l, err)
		}
		words, err := stranger.Client.Manifests(ctx, h, a.owner.ID, st.Held)
		if err != nil || len(words) != len(a.packs) {
			t.Fatalf("%d manifests, %v", len(words), err)
		}
		for _, p := range a.packs {
			got, err := stranger.Client.Get(ctx, h, &p.Manifest, st.Slot, 0, p.Manifest.ShardSize())
			if err != nil || !bytes.Equal(got, p.Shards[st.Slot]) {
				t.Fatalf("shard: %v", err)
			}
		}
		answer++
	}
	if answer != left {
		t.Fatalf("%d holders answer, not %d", answer, left)
	}
}

// Without the owner, three keepers put its record again and again and hold its
// shards, two of them vanish, a stranger comes, and both stay findable until
// their own ends, and no longer. That files come back after ninety days, and by
// the words alone, is shown in cmd/skep/daemon.
func TestRecordOutlivesItsOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates a month")
	}
	c := Config{DHT: dht.Config{Refresh: -1}}
	Simulate(t, 5, c, Link{}, func(t *testing.T, s *Swarm) {
		ctx := t.Context()
		const keepers, stranger, owner = 3, 3, 4
		last := withoutOwner()
		end := time.Now().Add(time.Duration(last+3) * day).Unix()
		r, word := storetest.Record(3, 41, end, 4000)
		for i := range keepers {
			if err := s.Peers[owner].Client.PutRecord(ctx, s.Peers[i].Key, word); err != nil {
				t.Fatal(err)
			}
		}
		lone, loneWord := storetest.Record(4, 1, end, 4000) // that nobody keeps
		if err := s.Peers[owner].DHT.PutRecord(ctx, loneWord); err != nil {
			t.Fatal(err)
		}
		group := abandon(t, s.Peers[owner], s.Peers[:keepers], time.Unix(end, 0))
		for _, h := range s.Peers[:keepers] {
			if err := h.DHT.Announced(ctx); err != nil {
				t.Fatal(err)
			}
		}
		s.Vanish(owner)
		begin, left := time.Now(), keepers
		for _, event := range []struct {
			day int
			do  func()
		}{
			{3, func() {}},
			{last / 3, func() { s.Vanish(0); left-- }},
			{last / 2, func() { s.Add(t, s.Peers[stranger]) }},
			{last * 2 / 3, func() { s.Vanish(1); left-- }},
			{last, func() {}},
		} {
			pass(s, time.Until(begin.Add(time.Duration(event.day)*day)))
			event.do()
			for _, p := range s.Peers[stranger:] {
				if p == s.Peers[owner] {
					continue
				}
				if got, err := p.DHT.GetRecord(ctx, r.Key()); err != nil || !bytes.Equal(got, word) {
					t.Fatalf("day %d, peer %v: %v", event.day, p.Key, err)
				}
				group.check(t, p, left)
				if _, err := p.DHT.GetRecord(ctx, lone.Key()); !errors.Is(err, dht.ErrNotFound) {
					t.Errorf("day %d: the record that nobody keeps: %v", event.day, err)
				}
			}
		}
		_, kept, err := s.Peers[stranger].Client.GetRecord(ctx, s.Peers[2].Key, r.Key())
		if err != nil || !bytes.Equal(kept, word) {
			t.Errorf("the last day, of the last keeper: %v", err)
		}
		pass(s, 4*day)
		if _, err := s.Peers[stranger].DHT.GetRecord(ctx, r.Key()); !errors.Is(err, dht.ErrNotFound) {
			t.Errorf("after its end: %v", err)
		}
		if h, ok := s.Peers[2].Store.Holding(group.owner.ID); !ok || h.Held.Count() != len(group.packs) {
			t.Errorf("in the time of grace: %d shards, %v", h.Held.Count(), ok)
		}
		pass(s, 3*day)
		if n := len(s.Peers[2].Store.Holdings()); n != 0 {
			t.Errorf("after the time of grace the holder still has %d groups", n)
		}
		pass(s, 2*day)
		if found, err := s.Peers[stranger].DHT.FindHolders(ctx, group.owner.ID, 10); !errors.Is(err, dht.ErrNotFound) {
			t.Errorf("after all, %d holders are found, %v", len(found), err)
		}
		if n := len(s.Peers[2].Store.Records()); n != 0 {
			t.Errorf("after its end the keeper still has %d records", n)
		}
	})
}
