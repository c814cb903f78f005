package holder_test

import (
	"bytes"
	"errors"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	"skep/test/simnet"
	"skep/test/storetest"
)

func TestRecords(t *testing.T) {
	s := simnet.Loopback(t, 3, simnet.Config{Holder: holder.Config{Records: 4, PeerRecords: 2}})
	ctx := t.Context()
	keeper, a, b := s.Peers[0], s.Peers[1], s.Peers[2]
	r, first := storetest.Record(1, 1, until(), 100)
	_, second := storetest.Record(1, 2, until(), 100)
	if _, _, err := a.Client.GetRecord(ctx, keeper.Key, r.Key()); !errors.Is(err, client.ErrAbsent) {
		t.Errorf("absent record: %v", err)
	}
	for _, word := range [][]byte{first, first, second} {
		if err := a.Client.PutRecord(ctx, keeper.Key, word); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Client.PutRecord(ctx, keeper.Key, first); !refusedFor(err, "number 2") {
		t.Errorf("an older record: %v", err)
	}
	got, word, err := b.Client.GetRecord(ctx, keeper.Key, r.Key())
	if err != nil || got.Number != 2 || !bytes.Equal(word, second) {
		t.Errorf("record: %+v, %v", got, err)
	}
	_, other := storetest.Record(1, 2, until()+1, 101)
	if err := b.Client.PutRecord(ctx, keeper.Key, other); !refusedFor(err, "number 2") {
		t.Errorf("another value under the number: %v", err)
	}
	if _, word, _ := b.Client.GetRecord(ctx, keeper.Key, r.Key()); !bytes.Equal(word, second) {
		t.Error("the value that came first is not kept")
	}
	_, ended := storetest.Record(2, 1, time.Now().Unix()-1, 100)
	if err := a.Client.PutRecord(ctx, keeper.Key, ended); !refusedFor(err, "ended") {
		t.Errorf("a record that ended: %v", err)
	}
	if err := a.Client.PutRecord(ctx, keeper.Key, []byte("no record")); !refusedFor(err, "malformed") {
		t.Errorf("not a record: %v", err)
	}
	putNew := func(p *simnet.Peer, seed uint64) error {
		_, word := storetest.Record(seed, 1, until(), 100)
		return p.Client.PutRecord(ctx, keeper.Key, word)
	}
	if err := putNew(a, 10); err != nil {
		t.Fatal(err)
	}
	if err := putNew(a, 11); !errors.Is(err, client.ErrFull) {
		t.Errorf("a third record of one peer: %v", err)
	}
	if err := errors.Join(putNew(b, 12), putNew(b, 13)); err != nil {
		t.Fatal(err)
	}
	_, third := storetest.Record(1, 3, until(), 100)
	if err := a.Client.PutRecord(ctx, keeper.Key, third); err != nil {
		t.Errorf("a newer one of a record that is there: %v", err)
	}
	// Those who have brought more make room, down to one each.
	if err := errors.Join(putNew(s.Add(t), 14), putNew(s.Add(t), 15)); err != nil {
		t.Errorf("first records of others: %v", err)
	}
	if err := putNew(s.Add(t), 16); !errors.Is(err, client.ErrFull) {
		t.Errorf("where each has one record: %v", err)
	}
	if n := len(keeper.Store.Records()); n != 4 {
		t.Errorf("%d records are kept", n)
	}
}

// Records of who brought few stay, however many bring others; one who brought many makes room.
func TestRecordsOfFewStay(t *testing.T) {
	s := simnet.Loopback(t, 3, simnet.Config{Holder: holder.Config{Records: 6, PeerRecords: 16}})
	keeper, owner, greedy := s.Peers[0], s.Peers[1], s.Peers[2]
	put := func(p *simnet.Peer, seed uint64) error {
		_, word := storetest.Record(seed, 1, until(), 100)
		return p.Client.PutRecord(t.Context(), keeper.Key, word)
	}
	if err := errors.Join(put(owner, 1), put(owner, 2), put(greedy, 3), put(greedy, 4), put(greedy, 5), put(greedy, 6)); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(put(s.Add(t), 7), put(s.Add(t), 8)); err != nil {
		t.Errorf("beside one who brought many: %v", err)
	}
	for seed := uint64(9); seed < 13; seed++ {
		if err := put(s.Add(t), seed); !errors.Is(err, client.ErrFull) {
			t.Errorf("where all brought few: %v", err)
		}
	}
	for seed := uint64(1); seed <= 2; seed++ {
		r, _ := storetest.Record(seed, 1, until(), 100)
		if _, _, err := owner.Client.GetRecord(t.Context(), keeper.Key, r.Key()); err != nil {
			t.Errorf("the owner's record %d: %v", seed, err)
		}
	}
}

// hourly is a swarm whose keepers look into the directory every hour, so that not much of
// its life has to be simulated.
var hourly = simnet.Config{Holder: holder.Config{Republish: time.Hour}}

// A keeper that missed a newer record finds it in the DHT and keeps it.
func TestKeeperAdoptsNewer(t *testing.T) {
	simnet.Simulate(t, 4, hourly, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		keeper, owner := s.Peers[0], s.Peers[3]
		r, first := storetest.Record(1, 1, until(), 100)
		_, second := storetest.Record(1, 2, until(), 100)
		if err := owner.Client.PutRecord(ctx, keeper.Key, first); err != nil {
			t.Fatal(err)
		}
		s.Pass(10 * time.Minute)
		if err := owner.DHT.PutRecord(ctx, second); err != nil {
			t.Fatal(err)
		}
		s.Pass(70 * time.Minute)
		if got, _, err := owner.Client.GetRecord(ctx, keeper.Key, r.Key()); err != nil || got.Number != 2 {
			t.Errorf("the keeper has %+v, %v", got, err)
		}
	})
}

// A record that its owner brings again and again is kept on and on; one that he
// does not is kept for so long.
func TestRecordThatIsBroughtAgainIsKept(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Holder: holder.Config{KeepRecords: 10 * time.Hour, Republish: 20 * time.Hour}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		keeper, owner := s.Peers[0], s.Peers[1]
		again, word := storetest.Record(1, 1, until(), 100)
		once, other := storetest.Record(2, 1, until(), 100)
		if err := owner.Client.PutRecord(ctx, keeper.Key, other); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := owner.Client.PutRecord(ctx, keeper.Key, word); err != nil {
				t.Fatal(err)
			}
			s.Pass(7 * time.Hour)
		}
		if _, _, err := owner.Client.GetRecord(ctx, keeper.Key, again.Key()); err != nil {
			t.Errorf("the record that was brought seven hours ago: %v", err)
		}
		if _, _, err := owner.Client.GetRecord(ctx, keeper.Key, once.Key()); !errors.Is(err, client.ErrAbsent) {
			t.Errorf("the record that was brought twice as long ago: %v", err)
		}
	})
}

// A keeper that begins with a clock that is years behind keeps its records when the clock
// is set right.
func TestRecordsOfAKeeperWithoutAClock(t *testing.T) {
	var behind atomic.Int64
	behind.Store(int64(10 * 365 * 24 * time.Hour))
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Holder: holder.Config{Republish: 20 * time.Hour,
		Now: func() time.Time { return time.Now().Add(-time.Duration(behind.Load())) }}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		r, word := storetest.Record(1, 1, until(), 100)
		if err := s.Peers[1].Client.PutRecord(t.Context(), s.Peers[0].Key, word); err != nil {
			t.Fatal(err)
		}
		behind.Store(0)
		s.Pass(5 * time.Hour)
		if _, _, err := s.Peers[1].Client.GetRecord(t.Context(), s.Peers[0].Key, r.Key()); err != nil {
			t.Error(err)
		}
	})
}

// unreadable is a store of which one record cannot be read, and none be removed.
type unreadable struct {
	holder.Store
	key group.SlotKey
}

func (u unreadable) DropRecord(group.SlotKey) error { return syscall.EIO }

func (u unreadable) Record(key group.SlotKey) ([]byte, group.PeerKey, error) {
	if key == u.key {
		return nil, group.PeerKey{}, syscall.EIO
	}
	return u.Store.Record(key)
}

// A holder with a record that its disk cannot read, and one that is none and cannot be
// removed, serves all else, and takes the first again.
func TestRecordThatCannotBeRead(t *testing.T) {
	bad, word := storetest.Record(1, 1, until(), 100)
	good, other := storetest.Record(2, 1, until(), 100)
	disk := func(int) holder.Store {
		s := storetest.NewMemory(1 << 30)
		for key, w := range map[group.SlotKey][]byte{bad.Key(): word, good.Key(): other, {1}: other} {
			if err := s.PutRecord(key, w, group.PeerKey{}); err != nil {
				t.Fatal(err)
			}
		}
		return unreadable{s, bad.Key()}
	}
	s := simnet.Loopback(t, 2, simnet.Config{Store: disk})
	keeper, owner := s.Peers[0], s.Peers[1]
	if _, _, err := owner.Client.GetRecord(t.Context(), keeper.Key, good.Key()); err != nil {
		t.Errorf("the other record: %v", err)
	}
	if err := owner.Client.PutRecord(t.Context(), keeper.Key, word); err != nil {
		t.Errorf("the record again: %v", err)
	}
}

// A record that is damaged on its keeper's disk comes back from the directory.
func TestKeeperFindsWhatItLost(t *testing.T) {
	simnet.Simulate(t, 4, hourly, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		keeper, owner := s.Peers[0], s.Peers[3]
		r, word := storetest.Record(1, 1, until(), 100)
		if err := owner.Client.PutRecord(ctx, keeper.Key, word); err != nil {
			t.Fatal(err)
		}
		s.Pass(10 * time.Minute)
		if err := keeper.Store.DropRecord(r.Key()); err != nil { // as a store does that finds it damaged
			t.Fatal(err)
		}
		s.Pass(70 * time.Minute)
		if _, got, err := owner.Client.GetRecord(ctx, keeper.Key, r.Key()); err != nil || !bytes.Equal(got, word) {
			t.Errorf("the keeper has %v", err)
		}
	})
}
