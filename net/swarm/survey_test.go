package swarm

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
	"skep/net/client"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/net/wire"
)

// town is a host that is connected to peers, and those peers. It is the host
// and the Greeter of a Survey.
type town struct {
	host.Host

	mu        sync.Mutex // guards all below
	connected []peer.ID
	table     []peer.ID
	fail      map[group.PeerKey]error
	stuck     map[group.PeerKey]bool
	greeted   map[group.PeerKey][]time.Duration // since the beginning
	waits     int                               // for those that are stuck
	begin     time.Time
}

func (v *town) ID() peer.ID                    { return skephost.ID(peerKey(999)) }
func (v *town) Network() network.Network       { return street{v: v} }
func (v *town) Peerstore() peerstore.Peerstore { return noAddrs{} }

type noAddrs struct{ peerstore.Peerstore }

func (noAddrs) Addrs(peer.ID) []multiaddr.Multiaddr { return nil }

// street is a town as a network.
type street struct {
	network.Network
	v *town
}

func (s street) Peers() []peer.ID {
	s.v.mu.Lock()
	defer s.v.mu.Unlock()
	return slices.Clone(s.v.connected)
}

func (s street) ConnsToPeer(id peer.ID) []network.Conn {
	if slices.Contains(s.Peers(), id) {
		return []network.Conn{door{}}
	}
	return nil
}

type door struct{ network.Conn }

func (door) Stat() (s network.ConnStats) { s.Direction = network.DirOutbound; return s }

func (door) RemoteMultiaddr() multiaddr.Multiaddr {
	return multiaddr.StringCast("/ip4/192.0.2.1/tcp/4001")
}

func (v *town) Hello(ctx context.Context, p group.PeerKey) (wire.Hello, error) {
	v.mu.Lock()
	v.greeted[p] = append(v.greeted[p], time.Since(v.begin))
	err, stuck := v.fail[p], v.stuck[p]
	v.mu.Unlock()
	if stuck {
		v.with(func() { v.waits++ })
		<-ctx.Done()
		v.with(func() { v.waits-- })
		err = ctx.Err()
	}
	return wire.Hello{Version: "test", Offered: 100, Free: 50, Region: "DE"}, err
}

func (v *town) with(fn func()) {
	v.mu.Lock()
	defer v.mu.Unlock()
	fn()
}

func (v *town) connect(i int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.connected = append(v.connected, skephost.ID(peerKey(i)))
}

// waiting is how many are waited for.
func (v *town) waiting() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.waits
}

// greetings is when a peer was greeted.
func (v *town) greetings(i int) []time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.greeted[peerKey(i)])
}

// surveying runs fn with a Survey that runs, in a bubble.
func surveying(t *testing.T, every time.Duration, fn func(t *testing.T, v *town, s *Survey)) {
	synctest.Test(t, func(t *testing.T) {
		v := &town{fail: map[group.PeerKey]error{}, stuck: map[group.PeerKey]bool{}, greeted: map[group.PeerKey][]time.Duration{}, begin: time.Now()}
		v.connected = []peer.ID{v.ID(), "an identity of another kind"}
		s := &Survey{Host: v, Greeter: v, Peers: peers.New(peers.Options{}), Every: every, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		s.Table = func() []peer.ID { v.mu.Lock(); defer v.mu.Unlock(); return slices.Clone(v.table) }
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		synctest.Wait()
		fn(t, v, s)
		cancel()
		wg.Wait()
	})
}

func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func seconds(n ...int) (out []time.Duration) {
	for _, n := range n {
		out = append(out, time.Duration(n)*time.Second)
	}
	return out
}

func (v *town) expect(t *testing.T, i int, want []time.Duration) {
	t.Helper()
	if got := v.greetings(i); !slices.Equal(got, want) {
		t.Errorf("peer %d was greeted at %v, want %v", i, got, want)
	}
}

func TestSurveyGreetsNewPeersAtOnce(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		v.connect(1)
		v.with(func() { v.table = append(v.table, skephost.ID(peerKey(2))) })
		s.Peers.Heard(peerKey(3))
		pass(time.Second)
		for i := 1; i <= 3; i++ {
			v.expect(t, i, seconds(1))
			p, _ := s.Peers.Get(peerKey(i))
			if p.Offered != 100 || p.Free != 50 || p.Region != "DE" || p.HelloAt.IsZero() || p.LastSeen.IsZero() {
				t.Errorf("peer %d: what it said was not noted: %+v", i, p)
			}
			if connected := i == 1; connected != (len(p.Addrs) > 0) {
				t.Errorf("peer %d: addresses %v", i, p.Addrs)
			}
		}
		if n := len(v.greeted); n != 3 {
			t.Errorf("%d peers were greeted", n)
		}
	})
}

func TestSurveyGreetsEverySoOften(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		v.connect(1)
		pass(3 * time.Minute)
		v.expect(t, 1, seconds(1, 61, 121))
	})
}

// A peer of which what it said is not so any more is greeted with the next round; also if
// it is being greeted just then, once that is over.
func TestSurveyGreetsSoon(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		v.connect(1)
		v.connect(2)
		pass(10 * time.Second)
		s.Soon([]group.PeerKey{peerKey(1), peerKey(3)})
		pass(20 * time.Second)
		v.expect(t, 1, seconds(1, 11))
		v.expect(t, 2, seconds(1))
		v.expect(t, 3, nil)
		s.mu.Lock()
		s.next[peerKey(2)] = greeting{begun: true}
		s.mu.Unlock()
		s.Soon([]group.PeerKey{peerKey(2)})
		s.plan(peerKey(2), true, false)
		pass(2 * time.Second)
		v.expect(t, 2, seconds(1, 31))
	})
}

func TestSurveyRetriesAfterSilence(t *testing.T) {
	surveying(t, 10*time.Second, func(t *testing.T, v *town, s *Survey) {
		v.with(func() { v.fail[peerKey(1)] = client.ErrUnreachable })
		v.connect(1)
		pass(30 * time.Second)
		v.expect(t, 1, seconds(1, 2, 4, 8, 16, 26))
		v.with(func() { delete(v.fail, peerKey(1)) })
		pass(20 * time.Second)
		v.expect(t, 1, seconds(1, 2, 4, 8, 16, 26, 36, 46))
	})
}

// One that keeps us waiting does not keep us from greeting others, is greeted
// once at a time, and counts as silent.
func TestSurveyDoesNotWaitForOne(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		s.Peers.Heard(peerKey(1))
		v.with(func() { v.stuck[peerKey(1)] = true })
		pass(2 * time.Second)
		v.connect(2)
		pass(time.Second)
		v.expect(t, 2, seconds(3))
		pass(7 * time.Second)
		v.expect(t, 1, seconds(1))
		pass(10 * time.Second)
		if n := len(v.greetings(1)); n != 2 {
			t.Errorf("greeted %d times, want again after it was given up", n)
		}
	})
}

func TestSurveyTellsWhoIsSilent(t *testing.T) {
	for name, set := range map[string]func(v *town){
		"unreachable":   func(v *town) { v.fail[peerKey(1)] = client.ErrUnreachable },
		"never answers": func(v *town) { v.stuck[peerKey(1)] = true },
	} {
		t.Run(name, func(t *testing.T) {
			surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
				for i := range 2 { // the other one answers, or nobody was asked
					s.Peers.Seen(peerKey(i), "")
				}
				v.with(func() { set(v) })
				pass(3 * time.Hour)
				s.Peers.Seen(peerKey(0), "")
				there, _ := s.Peers.Get(peerKey(0))
				silent, _ := s.Peers.Get(peerKey(1))
				if silent.Availability >= peers.Prior || there.Availability <= peers.Prior {
					t.Errorf("availability %v and %v", silent.Availability, there.Availability)
				}
			})
		})
	}
}

// A greeting that waited for other calls to the peer until its time was over is nothing
// that the peer missed.
func TestSurveyBlamesNobodyForOurOwnCalls(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		s.Peers.Seen(peerKey(1), "")
		v.with(func() { v.fail[peerKey(1)] = fmt.Errorf("%w: %w", client.ErrWaited, context.DeadlineExceeded) })
		pass(time.Hour)
		if p, _ := s.Peers.Get(peerKey(1)); p.Misses != 0 {
			t.Errorf("it missed %d greetings", p.Misses)
		}
		if s.Silent(peerKey(1)) {
			t.Error("it counts as silent")
		}
		v.with(func() { v.fail[peerKey(1)] = context.DeadlineExceeded })
		pass(time.Hour)
		if p, _ := s.Peers.Get(peerKey(1)); p.Misses == 0 {
			t.Error("one that was greeted and did not answer missed nothing")
		}
	})
}

func TestSurveyForgetsThePlansOfThoseForgotten(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		s.Peers.Heard(peerKey(1))
		pass(time.Second)
		s.Peers.Forget(peerKey(1))
		pass(time.Second)
		if len(s.next) != 0 {
			t.Error("still planned")
		}
		s.Peers.Heard(peerKey(1))
		pass(time.Second)
		v.expect(t, 1, seconds(1, 3))
	})
}

// However many say nothing when they are greeted, no more than some are waited for at
// once, and others are greeted in the end.
func TestSurveyAmongTheSilent(t *testing.T) {
	surveying(t, time.Minute, func(t *testing.T, v *town, s *Survey) {
		const silent = 10 * greetAtOnce
		for second := range 10 { // so that each round has some
			for i := range silent / 10 {
				n := second*silent/10 + i
				v.with(func() { v.stuck[peerKey(n)] = true })
				v.connect(n)
			}
			pass(time.Second)
			if n := v.waiting(); n > greetAtOnce {
				t.Fatalf("%d are waited for at once", n)
			}
		}
		v.connect(silent)
		pass(3 * time.Minute)
		if len(v.greetings(silent)) == 0 {
			t.Error("one that answers was not greeted")
		}
	})
}

// Who lingers does not wait for the few that are silent, and knows them afterwards.
func TestRoundLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &town{fail: map[group.PeerKey]error{}, stuck: map[group.PeerKey]bool{}, greeted: map[group.PeerKey][]time.Duration{}, begin: time.Now()}
		s := &Survey{Host: v, Greeter: v, Peers: peers.New(peers.Options{}), Every: time.Hour, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		for i := range 7 {
			v.connect(i)
		}
		v.stuck[peerKey(2)], v.stuck[peerKey(5)] = true, true
		const linger = 300 * time.Millisecond
		s.Round(Linger(t.Context(), linger))
		if took := time.Since(v.begin); took != linger {
			t.Errorf("took %v", took)
		}
		for i := range 7 {
			known, _ := s.Peers.Get(peerKey(i))
			if silent := i == 2 || i == 5; s.Silent(peerKey(i)) != silent || known.LastSeen.IsZero() != silent || known.Misses > 0 {
				t.Errorf("peer %d is silent: %v; %+v", i, s.Silent(peerKey(i)), known)
			}
		}
		v.connect(7) // is greeted alone, and silent: most of those that are known have answered
		v.stuck[peerKey(7)] = true
		begin := time.Now()
		if s.Round(Linger(t.Context(), linger)); time.Since(begin) != linger {
			t.Errorf("took %v", time.Since(begin))
		}
		clear(v.stuck)
		pass(2 * time.Second)
		s.Round(t.Context())
		if s.Silent(peerKey(2)) {
			t.Error("one that answers is called silent")
		}
	})
}

// Of a round that is over before it came to all, those who were not greeted are not
// called silent, and are greeted with the next one.
func TestRoundThatIsCutShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &town{fail: map[group.PeerKey]error{}, stuck: map[group.PeerKey]bool{}, greeted: map[group.PeerKey][]time.Duration{}, begin: time.Now()}
		s := &Survey{Host: v, Greeter: v, Peers: peers.New(peers.Options{}), Every: time.Hour, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
		const all = 3 * greetAtOnce
		for i := range all {
			v.connect(i)
			v.stuck[peerKey(i)] = true
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.Round(ctx)
		greeted := len(v.greeted)
		for i := range all {
			if asked := len(v.greetings(i)) > 0; s.Silent(peerKey(i)) != asked {
				t.Errorf("peer %d is silent: %v, was greeted: %v", i, s.Silent(peerKey(i)), asked)
			}
		}
		clear(v.stuck)
		s.Round(t.Context())
		if greeted != greetAtOnce || len(v.greeted) != all {
			t.Errorf("%d of %d were greeted, then %d", greeted, all, len(v.greeted))
		}
	})
}
