package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	skephost "skep/net/host"
	"skep/net/wire"
	"skep/test/simnet"
	"skep/test/storetest"
)

// scripted is a peer that answers as a test says.
func scripted(t *testing.T, answer func(network.Stream, wire.Request)) (hold group.PeerKey, addrs peer.AddrInfo) {
	t.Helper()
	h, err := skephost.New(skephost.Config{Key: storetest.Key(77), Listen: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	h.SetStreamHandler(wire.Protocol, func(s network.Stream) {
		defer s.Close()
		if m, _, err := wire.ReadRequest(s); err == nil {
			answer(s, m)
		}
	})
	k, err := skephost.Key(h.ID())
	if err != nil {
		t.Fatal(err)
	}
	return k, peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()}
}

func loopback() []multiaddr.Multiaddr {
	return []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
}

func asker(t *testing.T, o client.Options) *client.Client {
	t.Helper()
	h, err := skephost.New(skephost.Config{Key: storetest.Key(78), Listen: loopback()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return client.New(h, o)
}

// found is a finder that knows one peer.
func found(info peer.AddrInfo) func(context.Context, group.PeerKey) (peer.AddrInfo, error) {
	return func(_ context.Context, k group.PeerKey) (peer.AddrInfo, error) {
		if skephost.ID(k) != info.ID {
			return peer.AddrInfo{}, errors.New("nobody knows that peer")
		}
		return info, nil
	}
}

// Whatever a holder sends that was not asked for, or that proves nothing, is
// a lie, and nothing of it is returned.
func TestLies(t *testing.T) {
	o := storetest.NewOwner(1, 17, 1, 3)
	p := o.Pack(t, 1)
	other := o.Pack(t, 2)
	_, lease := o.Lease(1, 4_000_000_000)
	strange := storetest.NewOwner(2, 17, 1, 3)
	_, strangeLease := strange.Lease(1, 4_000_000_000)
	r, _ := storetest.Record(1, 1, 4_000_000_000, 10)
	_, strangeRecord := storetest.Record(2, 1, 4_000_000_000, 10)
	mine := storetest.Key(77)
	var wanted group.Bitmap
	wanted.Add(1)
	outboard, _ := erasure.Outboard(other.Shards[0])
	var proved bytes.Buffer
	if err := erasure.WriteSlice(&proved, bytes.NewReader(other.Shards[0]), outboard, 0, erasure.Unit); err != nil {
		t.Fatal(err)
	}
	slice := proved.Bytes()

	var header, body []byte
	hold, info := scripted(t, func(s network.Stream, _ wire.Request) {
		_, _ = s.Write(append(wire.AppendAnswer(nil, header, len(body)), body...))
	})
	c := asker(t, client.Options{Find: found(info)})
	ctx := t.Context()
	get := func() error { b, err := c.Get(ctx, hold, &p.Manifest, 0, 0, 10); return orBytes(b, err) }
	bare := func() error { b, err := c.GetBare(ctx, hold, &p.Manifest, 0, 0, 10, nil); return orBytes(b, err) }
	prove := func() error { return c.Prove(ctx, hold, &p.Manifest, 0, erasure.Nonce{}, 2) }
	manifests := func() error { m, err := c.Manifests(ctx, hold, o.ID, wanted); return orBytes(m[1], err) }
	statement := func() error { _, err := c.Statement(ctx, hold, o.ID); return err }
	admit := func() error { _, err := c.Admit(ctx, hold, lease, 1); return err }
	record := func() error { _, w, err := c.GetRecord(ctx, hold, r.Key()); return orBytes(w, err) }
	leaseOf := func() error { _, w, err := c.Lease(ctx, hold, o.ID); return orBytes(w, err) }
	for name, x := range map[string]struct {
		call         func() error
		header, body []byte
	}{
		"get of another pack":      {get, nil, slice},
		"get too short":            {get, nil, slice[:100]},
		"get of nothing":           {get, nil, nil},
		"get with a header":        {get, []byte{1}, slice},
		"bare get of a slice":      {bare, nil, slice},
		"bare get of nothing":      {bare, nil, nil},
		"proof of another pack":    {prove, nil, append(bytes.Clone(slice), slice...)},
		"proof too short":          {prove, nil, []byte{1}},
		"manifest not asked for":   {manifests, nil, wire.EncodeManifests([][]byte{other.Word})},
		"manifest of others":       {manifests, nil, wire.EncodeManifests([][]byte{strange.Pack(t, 1).Word})},
		"manifest out of form":     {manifests, nil, wire.EncodeManifests([][]byte{{1}})},
		"manifests out of form":    {manifests, nil, []byte{0xff}},
		"statement of others":      {statement, group.Statement{Group: o.ID}.Sign(storetest.Key(5)), nil},
		"statement on others":      {statement, group.Statement{Group: strange.ID}.Sign(mine), nil},
		"statement out of form":    {statement, []byte{1}, nil},
		"admitted to another slot": {admit, group.Statement{Group: o.ID, Slot: 2}.Sign(mine), nil},
		"record of others":         {record, strangeRecord, nil},
		"lease of others":          {leaseOf, strangeLease, nil},
		"lease that is none":       {leaseOf, p.Word[:100], nil},
	} {
		header, body = x.header, x.body
		if err := x.call(); !errors.Is(err, client.ErrLied) {
			t.Errorf("%s: %v", name, err)
		}
	}
	var e *client.Error
	if err := get(); !errors.As(err, &e) || e.Peer != hold || e.Op != wire.KindGet {
		t.Errorf("the error names %v", e)
	}
}

// orBytes fails a call that returned bytes with its error.
func orBytes(b []byte, err error) error {
	if err != nil && b != nil {
		return fmt.Errorf("returned %d bytes that were not checked", len(b))
	}
	return err
}

func TestRefusals(t *testing.T) {
	var status wire.Status
	hold, info := scripted(t, func(s network.Stream, _ wire.Request) {
		_, _ = s.Write(wire.AppendRefusal(nil, wire.Refusal{Status: status, Reason: "because"}))
	})
	c := asker(t, client.Options{Find: found(info)})
	for s, want := range map[wire.Status]error{
		wire.Absent: client.ErrAbsent, wire.Refused: client.ErrRefused, wire.Full: client.ErrFull, wire.Crowded: client.ErrCrowded,
		wire.Busy: client.ErrBusy, wire.Malformed: client.ErrRefused,
	} {
		status = s
		for _, err := range []error{
			func() error { _, err := c.Hello(t.Context(), hold); return err }(),
			c.Put(t.Context(), hold, []byte("manifest"), 0, make([]byte, 8<<20)), // larger than any window
		} {
			if !errors.Is(err, want) {
				t.Errorf("%v became %v", s, err)
			}
		}
	}
}

// A holder that is busy for a moment is asked again.
func TestBusyIsAskedAgain(t *testing.T) {
	var asked atomic.Int32
	hold, info := scripted(t, func(s network.Stream, _ wire.Request) {
		if asked.Add(1) < 3 {
			_, _ = s.Write(wire.AppendRefusal(nil, wire.Refusal{Status: wire.Busy}))
			return
		}
		_, _ = s.Write(wire.AppendAnswer(nil, (&wire.Hello{Version: "1"}).Encode(), 0))
	})
	c := asker(t, client.Options{Find: found(info)})
	if h, err := c.Hello(t.Context(), hold); err != nil || h.Version != "1" || asked.Load() != 3 {
		t.Errorf("%+v, %v, asked %d times", h, err, asked.Load())
	}
}

func TestUnreachable(t *testing.T) {
	c := asker(t, client.Options{})
	if _, err := c.Hello(t.Context(), group.PeerKey{1}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("a peer without an address: %v", err)
	}
	c = asker(t, client.Options{Find: func(context.Context, group.PeerKey) (peer.AddrInfo, error) {
		return peer.AddrInfo{}, errors.New("unknown")
	}})
	if _, err := c.Hello(t.Context(), group.PeerKey{1}); !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("a peer that nobody knows: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Hello(ctx, group.PeerKey{1}); !errors.Is(err, context.Canceled) || errors.Is(err, client.ErrUnreachable) {
		t.Errorf("a caller that gave up: %v", err)
	}
}

// A peer is called at an address that is known before anybody is asked for one, though the
// host knows none.
func TestKnownAddress(t *testing.T) {
	var asked atomic.Bool
	hold, info := scripted(t, func(network.Stream, wire.Request) { asked.Store(true) })
	c := asker(t, client.Options{
		Known: func(group.PeerKey) []multiaddr.Multiaddr { return info.Addrs },
		Find: func(context.Context, group.PeerKey) (peer.AddrInfo, error) {
			t.Error("the directory is asked")
			return info, nil
		},
	})
	if _, err := c.Hello(t.Context(), hold); !asked.Load() {
		t.Error(err)
	}
}

// No more calls than the options allow are under way to one peer.
func TestCallsAreBounded(t *testing.T) {
	simnet.Simulate(t, 2, simnet.Config{Client: client.Options{PeerCalls: 3, Calls: 5}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		var now, most atomic.Int32
		s.Peers[0].Host.SetStreamHandler(wire.Protocol, func(st network.Stream) {
			defer st.Close()
			n := now.Add(1)
			defer now.Add(-1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			time.Sleep(time.Second)
			_, _ = st.Write(wire.AppendAnswer(nil, (&wire.Hello{}).Encode(), 0))
		})
		var wg sync.WaitGroup
		for range 12 {
			wg.Go(func() {
				if _, err := s.Peers[1].Client.Hello(t.Context(), s.Peers[0].Key); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if most.Load() != 3 {
			t.Errorf("%d calls at once", most.Load())
		}
	})
}

// A call that never began, as others to the peer were under way, says so; one that was
// under way does not. Only the latter was sent, after the peer was found.
func TestCallThatWaited(t *testing.T) {
	begun := make(chan struct{})
	hold, info := scripted(t, func(network.Stream, wire.Request) {
		close(begun)
		<-t.Context().Done()
	})
	events := make(chan string, 8)
	find := func(ctx context.Context, p group.PeerKey) (peer.AddrInfo, error) {
		client.Sent(ctx) // as the calls are that are made to find it
		events <- "found"
		return found(info)(ctx, p)
	}
	c := asker(t, client.Options{Find: find, PeerCalls: 1})
	first, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := c.Hello(client.OnSent(first, func() { events <- "first sent" }), hold)
		ended <- err
	}()
	<-begun
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	ctx = client.OnSent(ctx, func() { events <- "second sent" })
	if _, err := c.Hello(ctx, hold); !errors.Is(err, client.ErrWaited) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("one that waited: %v", err)
	}
	end()
	if err := <-ended; errors.Is(err, client.ErrWaited) || !errors.Is(err, context.Canceled) {
		t.Errorf("one that was under way: %v", err)
	}
	close(events)
	var got []string
	for e := range events {
		got = append(got, e)
	}
	if !slices.Equal(got, []string{"found", "first sent"}) {
		t.Errorf("%q", got)
	}
}

// Peers that cannot be dialled keep no question to others from being asked, however
// many wait for them; and one dial is made for all who want the same peer.
func TestPeersOutOfReachKeepNobodyWaiting(t *testing.T) {
	const gone, questions = 16, 40
	var dialled, now, most atomic.Int32
	find := func(ctx context.Context, _ group.PeerKey) (peer.AddrInfo, error) {
		dialled.Add(1)
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		defer now.Add(-1)
		<-ctx.Done() // as a dial to an address that swallows packets
		return peer.AddrInfo{}, ctx.Err()
	}
	simnet.Simulate(t, 4, simnet.Config{}, simnet.Link{Latency: 30 * time.Millisecond}, func(t *testing.T, s *simnet.Swarm) {
		c := client.New(s.Peers[3].Host, client.Options{Find: find, Calls: 12, Dial: 5 * time.Second})
		var wg sync.WaitGroup
		for i := range gone * questions {
			wg.Go(func() {
				_, err := c.Hello(t.Context(), group.PeerKey{200, byte(i % gone)})
				if !errors.Is(err, client.ErrUnreachable) {
					t.Errorf("a peer that is gone: %v", err)
				}
			})
		}
		time.Sleep(time.Millisecond) // they are all under way
		begin := time.Now()
		for _, p := range s.Peers[:3] {
			if _, err := c.Hello(t.Context(), p.Key); err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("peers that are there answered after %v", took)
		}
		wg.Wait()
		if most.Load() != 12 {
			t.Errorf("%d dials at once, want 12", most.Load())
		}
		if n := dialled.Load(); n >= gone*questions/4 {
			t.Errorf("%d dials for %d questions", n, gone*questions)
		}
	})
}

// Who gave up while it dialled for others leaves the dial to them.
func TestDialOfOneThatGaveUp(t *testing.T) {
	hold, info := scripted(t, func(s network.Stream, _ wire.Request) {
		_, _ = s.Write(wire.AppendAnswer(nil, (&wire.Hello{Version: "1"}).Encode(), 0))
	})
	first := make(chan struct{})
	var tries atomic.Int32
	c := asker(t, client.Options{Find: func(ctx context.Context, _ group.PeerKey) (peer.AddrInfo, error) {
		if tries.Add(1) > 1 {
			return info, nil
		}
		close(first)
		<-ctx.Done()
		return peer.AddrInfo{}, ctx.Err()
	}})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := c.Hello(ctx, hold); !errors.Is(err, context.Canceled) {
			t.Errorf("who gave up: %v", err)
		}
	})
	<-first
	wg.Go(func() {
		if _, err := c.Hello(t.Context(), hold); err != nil {
			t.Errorf("who waited: %v", err)
		}
	})
	cancel()
	wg.Wait()
}

func TestRangesOutside(t *testing.T) {
	c := asker(t, client.Options{})
	m := storetest.NewOwner(1, 17, 1, 3).Pack(t, 1).Manifest
	for _, r := range [][3]int{{0, 0, 0}, {0, -1, 2}, {0, 0, 1 << 30}, {3, 0, 1}, {0, 1 << 17, 1}} {
		if _, err := c.Get(t.Context(), group.PeerKey{1}, &m, uint8(r[0]), r[1], r[2]); err == nil || errors.Is(err, client.ErrUnreachable) {
			t.Errorf("range %v: %v", r, err)
		}
	}
}

// Memory for an answer is taken when it comes: while our own line brings nothing, very many
// are asked and waited for.
func TestMemoryForAnswers(t *testing.T) {
	o := storetest.NewOwner(1, 17, 1, 3)
	p := o.Pack(t, 1)
	asked, answer := make(chan struct{}), make(chan struct{})
	hold, info := scripted(t, func(s network.Stream, m wire.Request) {
		close(asked)
		<-answer
		r := m.(*wire.GetRequest)
		_, _ = s.Write(append(wire.AppendAnswer(nil, nil, int(r.Length)), p.Shards[0][r.Offset:][:r.Length]...))
	})
	c := asker(t, client.Options{Find: found(info)})
	var taken atomic.Int64
	ended := make(chan error, 1)
	go func() {
		b, err := c.GetBare(t.Context(), hold, &p.Manifest, 0, 3, 10, func(n int) []byte {
			taken.Add(1)
			return make([]byte, n)
		})
		if err == nil && !bytes.Equal(b, p.Shards[0][3:13]) {
			err = errors.New("other bytes")
		}
		ended <- err
	}()
	<-asked
	if n := taken.Load(); n != 0 {
		t.Errorf("%d before the answer", n)
	}
	close(answer)
	if err := <-ended; err != nil || taken.Load() != 1 {
		t.Errorf("%d in all, %v", taken.Load(), err)
	}
}

// What is not answered in time while a shard is on its way to the peer, and may fill the
// connection, is not the peer's fault.
func TestCallBesideAShard(t *testing.T) {
	o := storetest.NewOwner(1, 17, 1, 3)
	p := o.Pack(t, 1)
	pushed, over := make(chan struct{}), make(chan struct{})
	hold, info := scripted(t, func(_ network.Stream, m wire.Request) {
		if _, ok := m.(*wire.PutRequest); ok {
			close(pushed)
		}
		<-over
	})
	c := asker(t, client.Options{Find: found(info)})
	hello := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		_, err := c.Hello(ctx, hold)
		return err
	}
	if err := hello(); errors.Is(err, client.ErrWaited) {
		t.Errorf("alone: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- c.Put(t.Context(), hold, p.Word, 0, p.Shards[0]) }()
	<-pushed
	if err := hello(); !errors.Is(err, client.ErrWaited) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("beside a shard: %v", err)
	}
	close(over)
	if err := <-ended; errors.Is(err, client.ErrWaited) {
		t.Errorf("the shard: %v", err)
	}
	if err := hello(); errors.Is(err, client.ErrWaited) {
		t.Errorf("after it: %v", err)
	}
}
