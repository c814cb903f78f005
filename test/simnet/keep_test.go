package simnet

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

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

// withoutOwner is how many days the record has to do without its owner: a year
// where SKEP_SOAK is set.
func withoutOwner() int {
	if os.Getenv("SKEP_SOAK") != "" {
		return 365
	}
	return 90
}

// Ninety days without the owner: three keepers put the record again and again,
// two of them vanish, a stranger comes, and it stays findable until its own
// end.
func TestRecordOutlivesItsOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates a hundred days")
	}
	c := Config{DHT: dht.Config{Refresh: -1}}
	Simulate(t, 5, c, Link{}, func(t *testing.T, s *Swarm) {
		ctx := t.Context()
		const keepers, stranger, owner = 3, 3, 4
		last := withoutOwner()
		end := time.Now().Add(time.Duration(last+10) * day).Unix()
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
		s.Vanish(owner)
		begin := time.Now()
		for _, event := range []struct {
			day int
			do  func()
		}{
			{3, func() {}},
			{20, func() { s.Vanish(0) }},
			{30, func() { s.Add(t, s.Peers[stranger]) }},
			{60, func() { s.Vanish(1) }},
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
				if _, err := p.DHT.GetRecord(ctx, lone.Key()); !errors.Is(err, dht.ErrNotFound) {
					t.Errorf("day %d: the record that nobody keeps: %v", event.day, err)
				}
			}
		}
		_, kept, err := s.Peers[stranger].Client.GetRecord(ctx, s.Peers[2].Key, r.Key())
		if err != nil || !bytes.Equal(kept, word) {
			t.Errorf("the last day, of the last keeper: %v", err)
		}
		pass(s, 11*day)
		if _, err := s.Peers[stranger].DHT.GetRecord(ctx, r.Key()); !errors.Is(err, dht.ErrNotFound) {
			t.Errorf("after its end: %v", err)
		}
		if n := len(s.Peers[2].Store.Records()); n != 0 {
			t.Errorf("after its end the keeper still has %d records", n)
		}
	})
}
