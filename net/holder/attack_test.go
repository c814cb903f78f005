package holder_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	"skep/net/wire"
	"skep/test/simnet"
	"skep/test/storetest"
)

// What peers try here that mean harm, docs/threat-model.md lists.

// open opens a stream to a holder, with these bytes already sent.
func open(t *testing.T, from, to *simnet.Peer, b []byte) network.Stream {
	t.Helper()
	s, err := from.Host.NewStream(t.Context(), to.Host.ID(), wire.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Write(b); err != nil {
		t.Fatal(err)
	}
	return s
}

// drip sends bytes one by one until the other side has had enough, and returns
// how long that took.
func drip(s network.Stream, b []byte, every time.Duration) time.Duration {
	begin := time.Now()
	for len(b) > 0 {
		if _, err := s.Write(b[:1]); err != nil {
			break
		}
		b = b[1:]
		time.Sleep(every)
	}
	return time.Since(begin)
}

// patient is a client that is not the one to give up.
var patient = client.Options{Patience: wire.Patience{Stall: time.Hour, Total: time.Hour}}

// Who sends a header, or a shard, a byte at a time, or takes an answer so, is
// heard for as long as a stretch may take, not for a stretch each byte.
func TestSlowPeers(t *testing.T) {
	const stall = 20 * time.Second
	c := simnet.Config{Client: patient, DHT: dht.Config{Refresh: -1}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad := s.Peers[0], s.Peers[1]
		o := storetest.NewOwner(1, 22, 1, 2)
		_, lease := o.Lease(1, until())
		if _, err := bad.Client.Admit(t.Context(), hold.Key, lease, 0); err != nil {
			t.Fatal(err)
		}
		p := o.Pack(t, 0)
		if err := put(t, bad, hold, p, 0); err != nil {
			t.Fatal(err)
		}
		get := wire.AppendRequest(nil, &wire.GetRequest{Group: o.ID, Length: 4 << 20}, 0)
		next := o.Pack(t, 1)
		body := wire.AppendRequest(nil, &wire.PutRequest{Manifest: next.Word}, len(next.Shards[0]))

		slow := open(t, bad, hold, get[:1])
		if took := drip(slow, get[1:], 3*time.Second); took > stall+10*time.Second {
			t.Errorf("a header was waited for %v", took)
		}
		slow = open(t, bad, hold, body)
		if took := drip(slow, next.Shards[0], 3*time.Second); took > stall+10*time.Second {
			t.Errorf("a shard was waited for %v", took)
		}
		slow = open(t, bad, hold, get)
		time.Sleep(10 * time.Minute) // it is not read: no window is as large as the answer
		if n, err := io.Copy(io.Discard, slow); err == nil || n > 4<<20 {
			t.Errorf("an answer was kept ready for ten minutes: %d bytes, %v", n, err)
		}
		if offered, used := hold.Store.Room(); used > offered || used < 4<<20 {
			t.Errorf("%d of %d bytes are taken", used, offered)
		}
	})
}

// Who takes all places by being slow, loses one for each honest peer that comes.
func TestSlowPeersMakeRoom(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Holder: holder.Config{Requests: 8, PeerRequests: 4}}
	simnet.Simulate(t, 6, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, honest := s.Peers[0], s.Peers[5]
		o := storetest.NewOwner(1, 22, 1, 2)
		_, lease := o.Lease(1, until())
		if _, err := honest.Client.Admit(t.Context(), hold.Key, lease, 0); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		defer wg.Wait()
		defer cancel()
		for i := range 8 {
			p := o.Pack(t, uint16(i))
			st := open(t, s.Peers[1+i%4], hold, wire.AppendRequest(nil, &wire.PutRequest{Manifest: p.Word}, len(p.Shards[0])))
			wg.Go(func() { // just fast enough for each stretch
				for b := p.Shards[0]; len(b) > 8<<10 && ctx.Err() == nil; b = b[8<<10:] {
					if _, err := st.Write(b[:8<<10]); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			})
		}
		time.Sleep(5 * time.Second)
		if _, err := honest.Client.Hello(t.Context(), hold.Key); !errors.Is(err, client.ErrBusy) {
			t.Errorf("with all places taken: %v", err)
		}
		time.Sleep(10 * time.Second)
		for range 3 {
			if _, err := honest.Client.Hello(t.Context(), hold.Key); err != nil {
				t.Errorf("with all places taken for long: %v", err)
			}
		}
	})
}

// A peer that has many requests inside leaves places to those that have none.
func TestGreedyPeer(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Holder: holder.Config{Requests: 8, PeerRequests: 8}}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
		for range 8 {
			defer open(t, bad, hold, []byte{byte(wire.KindHello)}).Reset()
		}
		time.Sleep(time.Second)
		if _, err := bad.Client.Hello(t.Context(), hold.Key); !errors.Is(err, client.ErrBusy) {
			t.Errorf("the greedy one: %v", err)
		}
		if _, err := good.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("the other: %v", err)
		}
	})
}

// Room that is promised to shards which do not come is no room lost.
func TestPromisedRoom(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Store: small(5 << 20)}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, honest := s.Peers[0], s.Peers[1], s.Peers[2]
		theirs, ours := storetest.NewOwner(1, 22, 1, 2), storetest.NewOwner(2, 20, 1, 2)
		for p, o := range map[*simnet.Peer]*storetest.Owner{bad: theirs, honest: ours} {
			_, lease := o.Lease(1, until())
			if _, err := p.Client.Admit(t.Context(), hold.Key, lease, 0); err != nil {
				t.Fatal(err)
			}
		}
		p := theirs.Pack(t, 0)
		st := open(t, bad, hold, wire.AppendRequest(nil, &wire.PutRequest{Manifest: p.Word}, len(p.Shards[0])))
		defer st.Reset()
		time.Sleep(time.Second)
		if err := put(t, honest, hold, ours.Pack(t, 0), 0); !errors.Is(err, client.ErrBusy) {
			t.Errorf("while the room is promised: %v", err)
		}
		time.Sleep(12 * time.Second)
		if err := put(t, honest, hold, ours.Pack(t, 0), 0); err != nil {
			t.Errorf("when it was promised for long: %v", err)
		}
	})
}

// Streams that say nothing keep nobody out.
func TestSilentStreams(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
		var all []network.Stream
		for range 200 {
			all = append(all, open(t, bad, hold, nil))
		}
		time.Sleep(time.Second)
		if _, err := good.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("another peer: %v", err)
		}
		time.Sleep(time.Minute)
		for _, st := range all {
			_ = st.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := io.ReadAll(st); errors.Is(err, context.DeadlineExceeded) {
				t.Fatal("a stream that said nothing is still there")
			}
			_ = st.Reset()
		}
		if _, err := bad.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("the peer itself, later: %v", err)
		}
	})
}

// Lengths that nothing can have, and CBOR that swells, cost no memory.
func TestSwellingRequests(t *testing.T) {
	hold, bad, _ := pair(t, simnet.Config{})
	deep := bytes.Repeat([]byte{0x81}, 60)
	for kind := byte(0); kind < 12; kind++ {
		for name, header := range map[string][]byte{
			"a long array":  {0x9b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
			"long bytes":    {0x81, 0x5b, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
			"a deep array":  deep,
			"an open array": {0x9f, 0x9f, 0x9f},
			"a map":         {0xbb, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
		} {
			frame := append([]byte{kind, 0, 0, 0, byte(len(header)), 0, 0, 0, 0}, header...)
			refusedAsMalformed(t, open(t, bad, hold, frame), name)
		}
		refusedAsMalformed(t, open(t, bad, hold, []byte{kind, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}), "a header of 4 GiB")
		refusedAsMalformed(t, open(t, bad, hold, []byte{kind, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff}), "a body of 4 GiB")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	const n = 200
	for range n {
		refusedAsMalformed(t, open(t, bad, hold, []byte{byte(wire.KindPut), 0, 0, 0x20, 0, 4, 0, 0, 1}), "a shard too large")
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / n; each > 64<<10 { // both sides of a stream included
		t.Errorf("%d bytes of memory for a refusal", each)
	}
}

func refusedAsMalformed(t *testing.T, s network.Stream, what string) {
	t.Helper()
	_ = s.CloseWrite()
	_ = s.SetReadDeadline(time.Now().Add(30 * time.Second))
	_, _, err := wire.ReadAnswer(s, wire.KindHello)
	var r *wire.Refusal
	if !errors.As(err, &r) || r.Status != wire.Malformed {
		t.Errorf("%s: %v", what, err)
	}
	_ = s.Close()
}

// One peer cannot have more than its share of requests in a second, nor of
// answers that are made in memory.
func TestFloods(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Holder: holder.Config{Pace: 20, PeerPace: 5}}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
		time.Sleep(10 * time.Second)
		ask := wire.AppendRequest(nil, &wire.HelloRequest{}, 0)
		served, begin := 0, time.Now()
		for range 60 {
			st := open(t, bad, hold, ask)
			_, _, err := wire.ReadAnswer(st, wire.KindHello)
			if err == nil {
				served++
			}
			_ = st.Close()
		}
		took := time.Since(begin)
		if may := 5 * int((took+2*time.Second)/time.Second+1); served > may || served < 10 {
			t.Errorf("%d of 60 were served in %v", served, took)
		}
		if _, err := good.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("another peer: %v", err)
		}
		time.Sleep(3 * time.Second)
		if _, err := bad.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Errorf("the peer itself, later: %v", err)
		}
	})
}

// A peer that asks for all manifests again and again, and takes none of them,
// holds up no memory but that of two answers.
func TestManifestsAreHeavy(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}, Client: patient}
	simnet.Simulate(t, 3, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
		o := storetest.NewOwner(1, 20, 16, 128) // long manifests
		_, lease := o.Lease(1, until())
		if _, err := bad.Client.Admit(t.Context(), hold.Key, lease, 0); err != nil {
			t.Fatal(err)
		}
		p := o.Pack(t, 0)
		m := p.Manifest
		for n := range uint16(group.MaxPacks) { // the same shards, under every number
			m.Number = n
			p.Word = m.Sign(o.Key)
			if err := put(t, bad, hold, p, 0); err != nil {
				t.Fatal(err)
			}
		}
		var all group.Bitmap
		for n := range uint16(group.MaxPacks) {
			all.Add(n)
		}
		ask := wire.AppendRequest(nil, &wire.ManifestsRequest{Group: o.ID, Wanted: all}, 0)
		for range 2 {
			defer open(t, bad, hold, ask).Reset()
		}
		time.Sleep(time.Second)
		st := open(t, bad, hold, ask)
		_, _, err := wire.ReadAnswer(st, wire.KindManifests)
		var r *wire.Refusal
		if !errors.As(err, &r) || r.Status != wire.Busy {
			t.Errorf("a third long answer: %v", err)
		}
		words, err := good.Client.Manifests(t.Context(), hold.Key, o.ID, all)
		if err != nil || len(words) != group.MaxPacks {
			t.Errorf("another peer got %d manifests, %v", len(words), err)
		}
	})
}

// Nobody fills the places for groups alone.
func TestGroupSquatting(t *testing.T) {
	s := simnet.Loopback(t, 3, simnet.Config{Holder: holder.Config{Groups: 6, PeerGroups: 4}})
	hold, bad, good := s.Peers[0], s.Peers[1], s.Peers[2]
	admit := func(p *simnet.Peer, seed uint64) error {
		_, lease := storetest.NewOwner(seed, 16, 1, 2).Lease(1, until())
		_, err := p.Client.Admit(t.Context(), hold.Key, lease, 0)
		return err
	}
	for i := range uint64(8) {
		if err := admit(bad, 10+i); (err == nil) != (i < 4) || err != nil && !errors.Is(err, client.ErrCrowded) {
			t.Errorf("group %d: %v", i, err)
		}
	}
	if err := errors.Join(admit(bad, 10), admit(good, 20), admit(good, 21)); err != nil {
		t.Errorf("one of those that are here, and two of another peer: %v", err)
	}
	if err := admit(good, 22); !errors.Is(err, client.ErrCrowded) {
		t.Errorf("beyond the total: %v", err)
	}
}

// A group that is over leaves its place to another one. It is kept in mind, so that
// no older lease brings it back, as long as there are not too many.
func TestGroupsThatAreOver(t *testing.T) {
	s := simnet.Loopback(t, 3, simnet.Config{Holder: holder.Config{Groups: 4, PeerGroups: 2, Over: 3}})
	hold, busy, calm := s.Peers[0], s.Peers[1], s.Peers[2]
	over := func(l *group.Lease) { l.Dead = group.AllPacks }
	admit := func(p *simnet.Peer, seed, number uint64, changes ...func(*group.Lease)) error {
		_, lease := storetest.NewOwner(seed, 16, 1, 2).Lease(number, until()+int64(seed), changes...)
		_, err := p.Client.Admit(t.Context(), hold.Key, lease, 0)
		return err
	}
	known := func(seed uint64) bool {
		_, err := busy.Client.Statement(t.Context(), hold.Key, storetest.NewOwner(seed, 16, 1, 2).ID)
		if err != nil && !errors.Is(err, client.ErrAbsent) {
			t.Error(err)
		}
		return err == nil
	}
	if err := errors.Join(admit(calm, 1, 1), admit(calm, 1, 2, over)); err != nil {
		t.Fatal(err)
	}
	for seed := uint64(10); seed < 20; seed++ {
		if err := errors.Join(admit(busy, seed, 1), admit(busy, seed+100, 1)); err != nil {
			t.Fatalf("group %d, after those before are over: %v", seed, err)
		}
		if err := admit(busy, seed+200, 1); !errors.Is(err, client.ErrCrowded) {
			t.Errorf("a third group that is not over: %v", err)
		}
		if err := errors.Join(admit(busy, seed, 2, over), admit(busy, seed+100, 2, over)); err != nil {
			t.Error(err)
		}
	}
	if !known(1) || !known(118) || !known(119) || known(117) || known(19) {
		t.Error("not those that end last are kept in mind, of the peer that brought most")
	}
	if n := len(hold.Store.Holdings()); n != 3 {
		t.Errorf("%d groups are kept in mind", n)
	}
	p := storetest.NewOwner(119, 16, 1, 2).Pack(t, 0)
	if err := errors.Join(admit(busy, 119, 1)); err != nil {
		t.Error(err)
	}
	if err := put(t, busy, hold, p, 0); !refusedFor(err, "dead") {
		t.Errorf("a pack of a group that is over: %v", err)
	}
	if err := admit(calm, 50, 1, over); err != nil || known(50) {
		t.Errorf("a group that was over before it came is kept in mind, %v", err)
	}
}

// A fellow holder, who knows the lease, asks for another slot of a group that
// has no shard yet, again and again: the owner's shard comes in all the same,
// and the holder does not look like a liar.
func TestSlotsAreNotStolen(t *testing.T) {
	s := simnet.Loopback(t, 3, simnet.Config{})
	hold, bad, owner := s.Peers[0], s.Peers[1], s.Peers[2]
	ctx, cancel := context.WithCancel(t.Context())
	o := storetest.NewOwner(1, 16, 1, 3)
	_, lease := o.Lease(1, until())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for ctx.Err() == nil {
				_, _ = bad.Client.Admit(ctx, hold.Key, lease, 2)
			}
		})
	}
	for range 200 {
		if _, err := owner.Client.Admit(ctx, hold.Key, lease, 1); err != nil {
			t.Errorf("admit: %v", err)
			break
		}
	}
	cancel()
	wg.Wait()
	ctx = t.Context()
	for n := range uint16(5) {
		if _, err := bad.Client.Admit(ctx, hold.Key, lease, 2); (err == nil) != (n == 0) {
			t.Errorf("the other slot, before pack %d: %v", n, err)
		}
		if err := put(t, owner, hold, o.Pack(t, n), 1); err != nil {
			t.Fatalf("put: %v", err)
		}
	}
	if st, err := owner.Client.Statement(ctx, hold.Key, o.ID); err != nil || st.Slot != 1 || st.Held.Count() != 5 {
		t.Errorf("statement: %+v, %v", st, err)
	}
}

// Words that were said before undo nothing, and cost nothing to say again.
func TestReplays(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{})
	ctx := t.Context()
	admit := func(word []byte) error { _, err := ask.Client.Admit(ctx, hold.Key, word, 1); return err }
	_, old := o.Lease(1, until()+1000)
	_, newer := o.Lease(5, until(), storetest.Dead(3), func(l *group.Lease) { l.Packs, l.Bytes = 8, 128<<10 })
	for _, word := range [][]byte{old, newer, old, newer, old} {
		if err := admit(word); err != nil {
			t.Fatal(err)
		}
	}
	l, _, err := ask.Client.Lease(ctx, hold.Key, o.ID)
	if err != nil || l.Number != 5 || l.Packs != 8 {
		t.Errorf("lease is %+v, %v", l, err)
	}
	if err := put(t, ask, hold, o.Pack(t, 3), 1); !refusedFor(err, "dead") {
		t.Errorf("a pack that the newer lease calls dead: %v", err)
	}
	if err := put(t, ask, hold, o.Pack(t, 9), 1); !refusedFor(err, "beyond the packs") {
		t.Errorf("a pack that only the older lease wants: %v", err)
	}
	for _, end := range []int64{math.MaxInt64, time.Now().Add(900 * 24 * time.Hour).Unix()} {
		_, forever := storetest.NewOwner(7, 16, 1, 2).Lease(1, end)
		if err := admit(forever); !refusedFor(err, "too far ahead") {
			t.Errorf("a lease until %d: %v", end, err)
		}
	}
}

// An owner that signs two packs under one number does not get the second in.
func TestTwoManifests(t *testing.T) {
	hold, ask, o := pair(t, simnet.Config{})
	p := o.Pack(t, 0)
	if err := put(t, ask, hold, p, 1); err != nil {
		t.Fatal(err)
	}
	twin := o.Pack(t, 1)
	m := twin.Manifest
	m.Number = 0
	twin.Word = m.Sign(o.Key)
	if err := put(t, ask, hold, twin, 1); !refusedFor(err, "") {
		t.Errorf("the second: %v", err)
	}
	got, err := ask.Client.Get(t.Context(), hold.Key, &p.Manifest, 1, 0, 1000)
	if err != nil || !bytes.Equal(got, p.Shards[1][:1000]) {
		t.Errorf("the first: %v", err)
	}
}

// Exchanges that are broken off in every place leave nothing behind.
func TestBrokenExchanges(t *testing.T) {
	hold, bad, o := pair(t, simnet.Config{Store: small(3 << 20)})
	p := o.Pack(t, 0)
	frame := append(wire.AppendRequest(nil, &wire.PutRequest{Manifest: p.Word, Slot: 1}, len(p.Shards[1])), p.Shards[1]...)
	for i := range 300 {
		st := open(t, bad, hold, frame[:i*(len(frame)-1)/300])
		_ = st.Reset()
	}
	deadline := time.Now().Add(30 * time.Second)
	for {
		hello, err := bad.Client.Hello(t.Context(), hold.Key)
		if err == nil && hello.Free == 3<<20-3<<20/8 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("room is still promised: %+v, %v", hello, err)
		}
	}
	for n := range uint16(16) {
		if err := put(t, bad, hold, o.Pack(t, n), 1); err != nil {
			t.Fatal(err)
		}
	}
}

// Records of one key holder, or of a few, do not keep out those of others.
func TestRecordFlood(t *testing.T) {
	s := simnet.Loopback(t, 4, simnet.Config{Holder: holder.Config{Records: 20, PeerRecords: 10}})
	keeper, good := s.Peers[0], s.Peers[3]
	seed := uint64(100)
	for _, bad := range s.Peers[1:3] {
		for range 15 {
			seed++
			_, word := storetest.Record(seed, math.MaxUint64, until(), 15<<10)
			_ = bad.Client.PutRecord(t.Context(), keeper.Key, word)
		}
	}
	if n := len(keeper.Store.Records()); n != 20 {
		t.Fatalf("%d records", n)
	}
	for i := range uint64(6) {
		r, word := storetest.Record(i+1, 1, until(), 500)
		if err := good.Client.PutRecord(t.Context(), keeper.Key, word); err != nil {
			t.Errorf("record %d: %v", i, err)
		}
		if _, _, err := good.Client.GetRecord(t.Context(), keeper.Key, r.Key()); err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
	for range 15 { // who has most is himself the one that makes room
		seed++
		_, word := storetest.Record(seed, 1, until(), 500)
		_ = s.Peers[1].Client.PutRecord(t.Context(), keeper.Key, word)
	}
	for i := range uint64(6) {
		r, _ := storetest.Record(i+1, 1, until(), 500)
		if _, _, err := good.Client.GetRecord(t.Context(), keeper.Key, r.Key()); err != nil {
			t.Errorf("record %d was driven out: %v", i, err)
		}
	}
}

// Many keys, each with a connection of its own that comes and goes, leave the
// holder as it was.
func TestConnectionChurn(t *testing.T) {
	c := simnet.Config{DHT: dht.Config{Refresh: -1}}
	simnet.Simulate(t, 2, c, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		hold, ask := s.Peers[0], s.Peers[1]
		s.Pass(time.Hour)
		const strangers = 60
		before := runtime.NumGoroutine() + 2*strangers // the simulated network keeps two for each endpoint
		for i := range strangers {
			h := s.Stranger(t, i)
			if err := h.Connect(t.Context(), hold.Info()); err != nil {
				t.Fatal(err)
			}
			if st, err := h.NewStream(t.Context(), hold.Host.ID(), wire.Protocol); err == nil {
				_, _ = st.Write([]byte{byte(wire.KindGet)})
			}
			_ = h.Close()
		}
		if _, err := ask.Client.Hello(t.Context(), hold.Key); err != nil {
			t.Fatal(err)
		}
		s.Pass(time.Hour)
		if n := len(hold.Host.Network().Conns()); n > 0 {
			t.Errorf("%d connections are left", n)
		}
		if n := runtime.NumGoroutine(); n > before {
			t.Errorf("%d goroutines are left", n-before)
		}
	})
}
