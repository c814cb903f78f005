package holder_test

import (
	"bytes"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/net/dht"
	"skep/net/holder"
	"skep/net/wire"
	"skep/test/simnet"
	"skep/test/storetest"
)

// Rot is found without anybody asking for the shard: it is claimed no longer,
// and can be brought again.
func TestScrubFindsRot(t *testing.T) {
	dir := t.TempDir()
	disk := func(i int) holder.Store {
		s, err := hosted.Open(filepath.Join(dir, string(rune('0'+i))), 64<<20)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	c := simnet.Config{Store: disk, DHT: dht.Config{Refresh: -1}, Holder: holder.Config{Scrub: 7 * time.Hour}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, ask := s.Peers[0], s.Peers[1]
		o := storetest.NewOwner(1, 18, 2, 3)
		_, lease := o.Lease(1, until())
		if _, err := ask.Client.Admit(t.Context(), hold.Key, lease, 1); err != nil {
			t.Fatal(err)
		}
		for n := range uint16(4) {
			if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
				t.Fatal(err)
			}
		}
		files, err := filepath.Glob(filepath.Join(dir, "0", "groups", "*", "[0-9]*"))
		if err != nil || len(files) != 4 {
			t.Fatalf("%d files, %v", len(files), err)
		}
		spoil(t, files[1], func(b []byte) []byte { b[len(b)-5000] ^= 1; return b })
		spoil(t, files[2], func(b []byte) []byte { return b[:len(b)-4096] })
		s.Pass(8 * time.Hour)
		st, err := ask.Client.Statement(t.Context(), hold.Key, o.ID)
		if err != nil || st.Held.Count() != 2 || !st.Held.Has(0) || !st.Held.Has(3) {
			t.Errorf("states %d shards: %v, %v", st.Held.Count(), st.Held, err)
		}
		for n := range uint16(4) {
			if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
				t.Errorf("pack %d again: %v", n, err)
			}
		}
	})
}

func spoil(t *testing.T, file string, how func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, how(b), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// watchedStore remembers when shards were verified.
type watchedStore struct {
	*storetest.Memory
	mu sync.Mutex
	at []time.Time
}

func (w *watchedStore) Verify(id group.ID, number uint16) error {
	w.mu.Lock()
	w.at = append(w.at, time.Now())
	w.mu.Unlock()
	return w.Memory.Verify(id, number)
}

func (w *watchedStore) seen() []time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return append([]time.Time(nil), w.at...)
}

// Every shard is looked at once in each turn, no faster than the rate, and
// while others ask for something only after a minute.
func TestScrubTakesItsTime(t *testing.T) {
	const packs, day = 5, 24 * time.Hour
	c := simnet.Config{
		Store:  func(int) holder.Store { return &watchedStore{Memory: storetest.NewMemory(1 << 30)} },
		Holder: holder.Config{Scrub: day, ScrubRate: 64 << 10, Patience: wire.Patience{Stall: time.Hour, Total: 2 * time.Hour}},
		DHT:    dht.Config{Refresh: -1},
	}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, ask := s.Peers[0], s.Peers[1]
		store := hold.Store.(*watchedStore)
		o := storetest.NewOwner(1, 18, 2, 3) // shards of 128 KiB: two seconds each
		_, lease := o.Lease(1, until())
		if _, err := ask.Client.Admit(t.Context(), hold.Key, lease, 1); err != nil {
			t.Fatal(err)
		}
		for n := range uint16(packs) {
			if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
				t.Fatal(err)
			}
		}
		s.Pass(day + time.Minute)
		at := store.seen()
		if len(at) != packs {
			t.Fatalf("%d shards were verified in a turn, not %d", len(at), packs)
		}
		for i := range at[1:] {
			if d := at[i+1].Sub(at[i]); d < 2*time.Second || d > 4*time.Second {
				t.Errorf("%v from one shard to the next", d)
			}
		}
		s.Pass(day - 2*time.Minute)
		st, err := ask.Host.NewStream(t.Context(), hold.Host.ID(), wire.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		defer st.Close()
		if _, err := st.Write([]byte{byte(wire.KindHello)}); err != nil { // a request that does not end
			t.Fatal(err)
		}
		time.Sleep(10 * time.Minute)
		at = store.seen()[packs:]
		if len(at) != packs {
			t.Fatalf("%d shards were verified in the second turn, not %d", len(at), packs)
		}
		for i := range at[1:] {
			if d := at[i+1].Sub(at[i]); d < time.Minute {
				t.Errorf("%v from one shard to the next while a request is served", d)
			}
		}
	})
}

// forgetfulStore has groups of which the leases could not be read, until they are looked
// for.
type forgetfulStore struct {
	*storetest.Memory
	mu    sync.Mutex
	found map[group.ID]bool
}

func (s *forgetfulStore) Holding(id group.ID) (group.Holding, bool) {
	g, ok := s.Memory.Holding(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.found[id] {
		g.Word, g.Lease, g.Last = nil, group.Lease{}, 0
	}
	return g, ok
}

func (s *forgetfulStore) VerifyLease(id group.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.found[id] = true
	return nil
}

// Leases that a disk did not give up at first are looked for at once, not when all shards
// before have been read.
func TestLeasesAreLookedFor(t *testing.T) {
	owners := []*storetest.Owner{storetest.NewOwner(1, 18, 2, 3), storetest.NewOwner(2, 18, 2, 3)}
	disk := func(int) holder.Store {
		s := &forgetfulStore{Memory: storetest.NewMemory(1 << 30), found: map[group.ID]bool{}}
		for _, o := range owners {
			l, word := o.Lease(1, until())
			if _, err := s.Admit(l, word, 1, group.PeerKey{}); err != nil {
				t.Fatal(err)
			}
			p := o.Pack(t, 0)
			if err := s.PutShard(&p.Manifest, p.Word, 1, bytes.NewReader(p.Shards[1])); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	s := simnet.Loopback(t, 2, simnet.Config{Store: disk, Holder: holder.Config{ScrubRate: 1}})
	for _, o := range owners {
		if err := put(t, s.Peers[1], s.Peers[0], o.Pack(t, 1), 1); err != nil {
			t.Error(err)
		}
	}
}
