package simnet

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	"github.com/marcopolo/simnet"
	"github.com/multiformats/go-multiaddr"
	"github.com/quic-go/quic-go"
	"go.uber.org/fx"

	skephost "skep/net/host"
	"skep/test/storetest"
)

// Link is what the network between the peers of a simulated swarm is like.
type Link struct {
	Latency       time.Duration // one way; 0 stands for 20 ms
	BitsPerSecond int           // up and down, of each peer; 0 stands for 100 Mbit/s
	Slow          map[int]int   // by peer, where it is not BitsPerSecond
}

// Simulate runs a test on a swarm of n peers on a simulated network, in a
// bubble of testing/synctest: time stands still but when all wait for it. All
// peers speak QUIC and have addresses of their own. Peers are stopped when f
// returns.
func Simulate(t *testing.T, n int, c Config, link Link, f func(t *testing.T, s *Swarm)) {
	defer oneProcessor()()
	synctest.Test(t, func(t *testing.T) {
		nw := newSimulated(link)
		defer nw.Close()
		s := &Swarm{join: func(i int) (Config, error) { return nw.configure(c, i), nil }, network: nw}
		defer s.stop()
		for range n {
			s.Add(t)
		}
		f(t, s)
	})
}

// simulated is the network under a simulated swarm.
type simulated struct {
	simnet.Simnet
	link Link

	mu        sync.Mutex // guards endpoints
	endpoints map[int]*simnet.SimConn
}

func newSimulated(l Link) *simulated {
	if l.Latency == 0 {
		l.Latency = 20 * time.Millisecond
	}
	if l.BitsPerSecond == 0 {
		l.BitsPerSecond = 100_000_000
	}
	nw := &simulated{link: l, endpoints: map[int]*simnet.SimConn{}}
	nw.LatencyFunc = simnet.StaticLatency(l.Latency)
	nw.Logger = slog.New(slog.NewTextHandler(io.Discard, nil)) // packets to peers that are gone
	nw.Start()
	return nw
}

// linkOf is how peer i is connected.
func (nw *simulated) linkOf(i int) simnet.NodeBiDiLinkSettings {
	one := simnet.LinkSettings{BitsPerSecond: nw.link.BitsPerSecond}
	if slow, ok := nw.link.Slow[i]; ok {
		one.BitsPerSecond = slow
	}
	return simnet.NodeBiDiLinkSettings{Downlink: one, Uplink: one}
}

// configure puts peer i on the network.
func (nw *simulated) configure(c Config, i int) Config {
	addr := fmt.Sprintf("/ip4/%s/udp/8000/quic-v1", simnet.IntToPublicIPv4(i))
	c.Host.Listen = []multiaddr.Multiaddr{multiaddr.StringCast(addr)}
	c.Host.Resources = &network.NullResourceManager{}
	c.Host.Options = append(c.Host.Options[:len(c.Host.Options):len(c.Host.Options)],
		libp2p.DisableIdentifyAddressDiscovery(), nw.sockets(i))
	return c
}

// sockets replaces the UDP sockets of peer i by endpoints of the network.
func (nw *simulated) sockets(i int) libp2p.Option {
	local := &sourceIP{}
	listen := func(_ string, addr *net.UDPAddr) (net.PacketConn, error) {
		nw.mu.Lock()
		defer nw.mu.Unlock()
		local.ip = addr.IP
		conn := nw.NewEndpoint(addr, nw.linkOf(i))
		nw.endpoints[i] = conn
		return conn, nil
	}
	build := func(lc fx.Lifecycle, reset quic.StatelessResetKey, token quic.TokenGeneratorKey, opts ...quicreuse.Option) (*quicreuse.ConnManager, error) {
		cm, err := quicreuse.NewConnManager(reset, token, opts...)
		if err != nil {
			return nil, err
		}
		lc.Append(fx.StopHook(cm.Close))
		return cm, nil
	}
	return libp2p.QUICReuse(build,
		quicreuse.OverrideSourceIPSelector(func() (quicreuse.SourceIPSelector, error) { return local, nil }),
		quicreuse.OverrideListenUDP(listen))
}

// unplug cuts peer i off: what is sent to it and from it is lost.
func (nw *simulated) unplug(i int) {
	nw.mu.Lock()
	conn := nw.endpoints[i]
	nw.mu.Unlock()
	if conn != nil {
		_ = conn.Close()
	}
}

// sourceIP answers from which address a peer dials.
type sourceIP struct{ ip net.IP }

// PreferredSourceIPForDestination implements quicreuse.SourceIPSelector.
func (s *sourceIP) PreferredSourceIPForDestination(*net.UDPAddr) (net.IP, error) { return s.ip, nil }

// Vanish takes peer i of a simulated swarm out of the network without a word:
// the others learn of it when their packets get no answer.
func (s *Swarm) Vanish(i int) {
	s.network.unplug(i)
	s.Peers[i].Stop()
}

// Hangup closes every connection of the swarm, as routers and idle times do in
// the long run. Peers connect again when they have something to say.
func (s *Swarm) Hangup() {
	for _, p := range s.Peers {
		for _, conn := range p.Host.Network().Conns() {
			_ = conn.Close()
		}
	}
}

// Pass lets time go by, with connections that do not last: to keep them alive
// for days is most of what a simulation does otherwise.
func (s *Swarm) Pass(d time.Duration) {
	s.Hangup()
	time.Sleep(d)
}

// Stranger starts a host that is on the swarm's network without being of the
// swarm. The caller closes it; no two have the same number.
func (s *Swarm) Stranger(t testing.TB, number int) host.Host {
	t.Helper()
	c, err := s.join(firstStranger + number)
	if err != nil {
		t.Fatal(err)
	}
	c.Host.Key = storetest.Key(uint64(firstStranger + number))
	h, err := skephost.New(c.Host)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// firstStranger is behind all peers of a swarm.
const firstStranger = 5000
