package holder_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/net/wire"
	"skep/test/simnet"
	"skep/test/storetest"
)

func until() int64 { return time.Now().Add(365 * 24 * time.Hour).Unix() }

func small(offer int64) func(int) holder.Store {
	return func(int) holder.Store { return storetest.NewMemory(offer) }
}

// pair is a swarm of a holder and an asker, with the holder in slot 1 of the
// group of an owner.
func pair(t *testing.T, c simnet.Config, changes ...func(*group.Lease)) (hold, ask *simnet.Peer, o *storetest.Owner) {
	t.Helper()
	s := simnet.Loopback(t, 2, c)
	o = storetest.NewOwner(1, 18, 2, 3)
	_, lease := o.Lease(1, until(), changes...)
	if _, err := s.Peers[1].Client.Admit(t.Context(), s.Peers[0].Key, lease, 1); err != nil {
		t.Fatal(err)
	}
	return s.Peers[0], s.Peers[1], o
}

func put(t *testing.T, ask, hold *simnet.Peer, p storetest.Pack, slot uint8) error {
	t.Helper()
	return ask.Client.Put(t.Context(), hold.Key, p.Word, slot, p.Shards[slot])
}

func refusedFor(err error, reason string) bool {
	var r *client.RefusedError
	return errors.As(err, &r) && errors.Is(err, client.ErrRefused) && strings.Contains(r.Reason, reason)
}

func TestPutIsVerified(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{}, func(l *group.Lease) { l.Packs, l.Bytes = 8, 300<<10 }, storetest.Dead(3))
	good := o.Pack(t, 0)
	wrong := good
	wrong.Shards = [][]byte{nil, bytes.Clone(good.Shards[1])}
	wrong.Shards[1][5] ^= 1
	forged := good
	forged.Word = bytes.Clone(good.Word)
	forged.Word[len(forged.Word)-1] ^= 1
	short := good
	short.Shards = [][]byte{nil, good.Shards[1][:64<<10]}
	for reason, p := range map[string]storetest.Pack{
		"does not match": wrong, "bad signature": forged, "bytes": short,
		"beyond the packs": o.Pack(t, 8), "dead": o.Pack(t, 3), "no lease": storetest.NewOwner(9, 18, 2, 3).Pack(t, 0),
	} {
		if err := put(t, ask, hold, p, 1); !refusedFor(err, reason) {
			t.Errorf("%s: %v", reason, err)
		}
	}
	for n := range uint16(2) {
		if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
			t.Fatal(err)
		}
		if err := put(t, ask, hold, good, 0); !refusedFor(err, "slot 1") {
			t.Errorf("another slot: %v", err)
		}
	}
	if err := put(t, ask, hold, o.Pack(t, 2), 1); !refusedFor(err, "budget") {
		t.Errorf("beyond the budget: %v", err)
	}
	if err := put(t, ask, hold, good, 1); err != nil {
		t.Errorf("the same again: %v", err)
	}
	st, err := ask.Client.Statement(t.Context(), hold.Key, o.ID)
	if err != nil || st.Held.Count() != 2 {
		t.Errorf("statement: %+v, %v", st, err)
	}
}

func TestDeadPacks(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{})
	ctx := t.Context()
	for n := range uint16(3) {
		if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
			t.Fatal(err)
		}
	}
	_, newer := o.Lease(3, until(), storetest.Dead(0))
	_, older := o.Lease(2, until(), storetest.Dead(1))
	for _, lease := range [][]byte{newer, older} {
		if _, err := ask.Client.Admit(ctx, hold.Key, lease, 1); err != nil {
			t.Fatal(err)
		}
	}
	st, err := ask.Client.Statement(ctx, hold.Key, o.ID)
	if err != nil || st.Held.Count() != 1 || !st.Held.Has(2) || st.Lease != 3 {
		t.Errorf("statement: %+v, %v", st, err)
	}
	for n := range uint16(2) {
		p := o.Pack(t, n)
		if _, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 1, 0, 1); !errors.Is(err, client.ErrAbsent) {
			t.Errorf("get of dead pack %d: %v", n, err)
		}
		if err := put(t, ask, hold, p, 1); !refusedFor(err, "dead") {
			t.Errorf("put of dead pack %d: %v", n, err)
		}
	}
}

func TestRoom(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{Store: small(320 << 10)})
	ctx := t.Context()
	if err := put(t, ask, hold, o.Pack(t, 0), 1); err != nil {
		t.Fatal(err)
	}
	if hello, err := ask.Client.Hello(ctx, hold.Key); err != nil || hello.Offered != 320<<10 || hello.Free != 192<<10-320<<10/8 {
		t.Errorf("hello: %+v, %v", hello, err)
	}
	if err := put(t, ask, hold, o.Pack(t, 1), 1); err != nil {
		t.Fatal(err)
	}
	if err := put(t, ask, hold, o.Pack(t, 2), 1); !errors.Is(err, client.ErrFull) {
		t.Errorf("beyond the offer: %v", err)
	}
	other := storetest.NewOwner(2, 18, 2, 3)
	_, lease := other.Lease(1, until())
	if _, err := ask.Client.Admit(ctx, hold.Key, lease, 0); !errors.Is(err, client.ErrFull) {
		t.Errorf("a new group without room: %v", err)
	}
}

// The last part of an offer is for small shards alone, and not told as free: who deletes
// has to publish that before anything comes free.
func TestLastRoomIsForSmallShards(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{Store: small(34 << 20)})
	large := storetest.NewOwner(2, 22, 2, 3)
	_, lease := large.Lease(1, until())
	if _, err := ask.Client.Admit(t.Context(), hold.Key, lease, 1); err != nil {
		t.Fatal(err)
	}
	var err error
	for n := uint16(0); err == nil; n++ {
		err = put(t, ask, hold, large.Pack(t, n), 1)
	}
	if !errors.Is(err, client.ErrFull) {
		t.Fatal(err)
	}
	if hello, err := ask.Client.Hello(t.Context(), hold.Key); err != nil || hello.Free >= 2200<<10 {
		t.Errorf("hello: %+v, %v", hello, err)
	}
	for n := range uint16(30) {
		if err := put(t, ask, hold, o.Pack(t, n), 1); err != nil {
			t.Errorf("small shard %d: %v", n, err)
		}
	}
}

// Shards that arrive at the same time do not share the last room.
func TestRoomIsReserved(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{Store: small(600 << 10)})
	var packs []storetest.Pack
	for n := range uint16(8) {
		packs = append(packs, o.Pack(t, n))
	}
	var wg sync.WaitGroup
	for _, p := range packs {
		wg.Go(func() {
			if err := put(t, ask, hold, p, 1); err != nil && !errors.Is(err, client.ErrFull) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if offered, used := hold.Store.Room(); used > offered || used == 0 {
		t.Errorf("%d of %d bytes are taken", used, offered)
	}
}

func TestAdmission(t *testing.T) {
	strangers := errors.New("no credit")
	c := simnet.Config{Holder: holder.Config{Groups: 2, Admit: func(_ group.PeerKey, _ group.Lease, slot uint8) error {
		if slot == 2 {
			return strangers
		}
		return nil
	}}}
	hold, ask, _ := pair(t, c)
	admit := func(o *storetest.Owner, end int64, slot uint8) error {
		_, lease := o.Lease(2, end)
		_, err := ask.Client.Admit(t.Context(), hold.Key, lease, slot)
		return err
	}
	two, three := storetest.NewOwner(2, 18, 2, 3), storetest.NewOwner(3, 18, 2, 3)
	if err := admit(two, until(), 2); !refusedFor(err, "no credit") {
		t.Errorf("a stranger: %v", err)
	}
	if err := admit(two, time.Now().Unix()-1, 0); !refusedFor(err, "ended") {
		t.Errorf("an old lease: %v", err)
	}
	if err := admit(two, until(), 0); err != nil {
		t.Error(err)
	}
	if err := admit(three, until(), 0); !errors.Is(err, client.ErrCrowded) {
		t.Errorf("a third group: %v", err)
	}
	if _, err := ask.Client.Statement(t.Context(), hold.Key, three.ID); !errors.Is(err, client.ErrAbsent) {
		t.Errorf("statement on what is not held: %v", err)
	}
}

func TestMalformed(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{})
	p := o.Pack(t, 0)
	if err := put(t, ask, hold, p, 1); err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"noise":     []byte("GET / HTTP/1.1\r\n\r\n"),
		"unaligned": wire.AppendRequest(nil, &wire.GetRequest{Group: o.ID, Slot: 1, Length: 5}, 0),
		"bare, too": wire.AppendRequest(nil, &wire.GetRequest{Group: o.ID, Slot: 1, Length: 5, Bare: true}, 0),
	} {
		s, err := ask.Host.NewStream(t.Context(), hold.Host.ID(), wire.Protocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(b); err != nil {
			t.Fatal(err)
		}
		_, _, err = wire.ReadAnswer(s, wire.KindGet)
		var r *wire.Refusal
		if !errors.As(err, &r) || r.Status != wire.Malformed {
			t.Errorf("%s: %v", name, err)
		}
		_ = s.Close()
	}
}

// Peers that open streams and say nothing use up their own share of requests,
// for as long as the holder is patient.
func TestStallingPeers(t *testing.T) {
	c := simnet.Config{
		Holder: holder.Config{Requests: 4, PeerRequests: 2, Patience: wire.Patience{Stall: 10 * time.Second, Total: time.Minute}},
		Client: client.Options{Patience: wire.Patience{Stall: time.Hour, Total: time.Hour}},
	}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
		var open []network.Stream
		for range 2 {
			st, err := bad.Host.NewStream(t.Context(), hold.Host.ID(), wire.Protocol)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Write([]byte{byte(wire.KindHello)}); err != nil {
				t.Fatal(err)
			}
			open = append(open, st)
		}
		time.Sleep(time.Second)
		if _, err := bad.Client.Hello(t.Context(), hold.Key); !errors.Is(err, client.ErrBusy) {
			t.Errorf("a third request of the peer that stalls: %v", err)
		}
		if _, err := good.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("another peer: %v", err)
		}
		begin := time.Now()
		for _, st := range open {
			if _, err := io.ReadAll(st); err == nil {
				t.Error("a stream that stalled was closed as if all were well")
			}
		}
		if d := time.Since(begin); d > 11*time.Second {
			t.Errorf("stalled streams were kept for %v", d)
		}
		if _, err := bad.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("after the stall: %v", err)
		}
	})
}

// A put whose sender goes away in the middle leaves nothing and gives its room
// back.
func TestBrokenPut(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{Store: small(200 << 10)})
	p := o.Pack(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	s, err := ask.Host.NewStream(ctx, hold.Host.ID(), wire.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = s.Write(wire.AppendRequest(nil, &wire.PutRequest{Manifest: p.Word, Slot: 1}, len(p.Shards[1])))
	_, _ = s.Write(p.Shards[1][:100_000])
	_ = s.Reset()
	cancel()
	for { // the room comes back when the holder has seen the reset
		err := put(t, ask, hold, p, 1)
		if err == nil {
			break
		}
		if !errors.Is(err, client.ErrFull) {
			t.Fatal(err)
		}
	}
}

func TestLeasesEnd(t *testing.T) {
	c := simnet.Config{Holder: holder.Config{Grace: 2 * time.Hour}, DHT: dht.Config{Refresh: -1}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		hold, ask := s.Peers[0], s.Peers[1]
		o := storetest.NewOwner(1, 16, 1, 2)
		p := o.Pack(t, 0)
		now := time.Now()
		_, long := o.Lease(1, now.Add(5*time.Hour).Unix())
		_, brief := o.Lease(2, now.Add(2*time.Hour).Unix(), storetest.Dead(5))
		for _, lease := range [][]byte{long, brief} {
			if _, err := ask.Client.Admit(ctx, hold.Key, lease, 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(t, ask, hold, p, 0); err != nil {
			t.Fatal(err)
		}
		if err := hold.DHT.Announced(ctx); err != nil {
			t.Fatal(err)
		}
		// The newer lease, of an owner whose clock was wrong maybe, takes nothing away.
		s.Pass(4 * time.Hour)
		if err := put(t, ask, hold, o.Pack(t, 1), 0); err != nil {
			t.Errorf("put while an older lease is good: %v", err)
		}
		if err := put(t, ask, hold, o.Pack(t, 5), 0); !refusedFor(err, "dead") {
			t.Errorf("put of a dead pack: %v", err)
		}
		s.Pass(90 * time.Minute)
		if _, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 0, 0, 1); err != nil {
			t.Errorf("within the grace: %v", err)
		}
		if err := put(t, ask, hold, o.Pack(t, 2), 0); !refusedFor(err, "ended") {
			t.Errorf("put after the end: %v", err)
		}
		s.Pass(4 * time.Hour)
		if _, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 0, 0, 1); !errors.Is(err, client.ErrAbsent) {
			t.Errorf("after the grace: %v", err)
		}
		if n := len(hold.Store.Holdings()); n != 0 {
			t.Errorf("%d groups are left", n)
		}
	})
}

// A clock that is years ahead for a while, as that of a machine may be until it
// has asked for the time, costs no shard and no record.
func TestClockAheadForAWhile(t *testing.T) {
	var ahead atomic.Int64
	c := simnet.Config{Holder: holder.Config{Now: func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }}, DHT: dht.Config{Refresh: -1}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		ctx := t.Context()
		hold, ask := s.Peers[0], s.Peers[1]
		o := storetest.NewOwner(1, 16, 1, 2)
		p := o.Pack(t, 0)
		end := time.Now().Add(400 * 24 * time.Hour).Unix()
		_, lease := o.Lease(1, end)
		if _, err := ask.Client.Admit(ctx, hold.Key, lease, 0); err != nil {
			t.Fatal(err)
		}
		if err := put(t, ask, hold, p, 0); err != nil {
			t.Fatal(err)
		}
		r, record := storetest.Record(1, 1, end, 100)
		if err := ask.Client.PutRecord(ctx, hold.Key, record); err != nil {
			t.Fatal(err)
		}
		ahead.Store(int64(5 * 365 * 24 * time.Hour))
		s.Pass(time.Hour + time.Minute)
		ahead.Store(0)
		s.Pass(3 * time.Hour)
		if _, err := ask.Client.Get(ctx, hold.Key, &p.Manifest, 0, 0, 1); err != nil {
			t.Errorf("the shard: %v", err)
		}
		if _, _, err := ask.Client.GetRecord(ctx, hold.Key, r.Key()); err != nil {
			t.Errorf("the record: %v", err)
		}
	})
}

func TestAudit(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{})
	p := o.Pack(t, 0)
	if err := put(t, ask, hold, p, 1); err != nil {
		t.Fatal(err)
	}
	for count := 1; count <= erasure.MaxSamples; count++ {
		if err := ask.Client.Prove(t.Context(), hold.Key, &p.Manifest, 1, erasure.Nonce{byte(count)}, count); err != nil {
			t.Errorf("%d samples: %v", count, err)
		}
	}
	if err := ask.Client.Prove(t.Context(), hold.Key, &p.Manifest, 0, erasure.Nonce{}, 1); !errors.Is(err, client.ErrAbsent) {
		t.Errorf("audit of another slot: %v", err)
	}
}

func TestKeyMustBeTheHosts(t *testing.T) {
	h, err := skephost.New(skephost.Config{Key: storetest.Key(1)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := holder.New(h, storetest.NewMemory(1), holder.Config{Key: storetest.Key(2)}); err == nil {
		t.Error("a holder would sign with another peer's key")
	}
}

func TestStorageFails(t *testing.T) {
	failing := func(int) holder.Store { return &failingStore{Memory: storetest.NewMemory(1 << 30)} }
	hold, ask, o := pair(t, simnet.Config{Store: failing})
	st := hold.Store.(*failingStore)
	st.set(syscall.ENOSPC)
	if err := put(t, ask, hold, o.Pack(t, 0), 1); !errors.Is(err, client.ErrFull) {
		t.Errorf("full disk: %v", err)
	}
	st.set(syscall.EIO)
	if err := put(t, ask, hold, o.Pack(t, 0), 1); !refusedFor(err, "storage failed") {
		t.Errorf("broken disk: %v", err)
	}
	if _, err := ask.Client.Statement(t.Context(), hold.Key, o.ID); !refusedFor(err, "storage failed") {
		t.Errorf("a statement of a disk that cannot be flushed: %v", err)
	}
	st.set(nil)
	if _, err := ask.Client.Statement(t.Context(), hold.Key, o.ID); err != nil {
		t.Error(err)
	}
}

// failingStore is a store whose disk fails puts and flushes.
type failingStore struct {
	*storetest.Memory
	mu  sync.Mutex
	err error
}

func (s *failingStore) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *failingStore) Settle(group.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

func (s *failingStore) PutShard(m *group.Manifest, word []byte, slot uint8, shard io.Reader) error {
	_, _ = io.CopyN(io.Discard, shard, 1000)
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}
