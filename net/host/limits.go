package host

import (
	"math"
	"net/netip"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/x/rate"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	defaultPerAddress = 64

	// systemMemory bounds what all streams may reserve for their windows. A
	// stream reserves 256 KiB when it opens and holds bytes only while its
	// reader is behind, so this is reservations, not resident memory: some five
	// hundred idle streams of the DHT and of identify fit. Windows grow beyond
	// 256 KiB only while less than half of it is reserved.
	systemMemory = 192 << 20
	// peerMemory is what one peer may have of it.
	peerMemory = 32 << 20
	// peerStreams is how many streams one peer may have open towards us.
	peerStreams = 32
	peerConns   = 8

	// directory is the protocol of the DHT, of which an honest peer has a stream
	// or two open. Each may hold a message in memory. Package dht ends streams before
	// there are so many of all peers.
	directory            = protocol.ID("/skep/kad/1.0.0")
	directoryStreams     = 128
	directoryPeerStreams = 8

	// maxAddresses bounds the addresses that are remembered of peers to which
	// there is no connection: anybody can tell us any number. 64 of one peer.
	maxAddresses = 50_000
)

// newResources returns the resource manager of a host that keeps about so many
// connections.
func newResources(conns, perAddress int) (network.ResourceManager, error) {
	scale := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scale) // of identify, ping, relay and their kind
	all := rcmgr.ResourceLimits{
		Memory: systemMemory, FD: rcmgr.LimitVal(2 * conns),
		Conns: rcmgr.LimitVal(2 * conns), ConnsInbound: rcmgr.LimitVal(2 * conns), ConnsOutbound: rcmgr.LimitVal(2 * conns),
		Streams: rcmgr.LimitVal(16 * conns), StreamsInbound: rcmgr.LimitVal(8 * conns), StreamsOutbound: rcmgr.LimitVal(16 * conns),
	}
	limits := rcmgr.PartialLimitConfig{
		System: all,
		// What has not said yet who it is, or what it wants. libp2p's own figures, some
		// tens for all, can be taken by a single stranger who says nothing.
		Transient: all,
		PeerDefault: rcmgr.ResourceLimits{
			Memory: peerMemory, FD: peerConns,
			Conns: peerConns, ConnsInbound: peerConns, ConnsOutbound: peerConns,
			Streams: 2 * peerStreams, StreamsInbound: peerStreams, StreamsOutbound: 2 * peerStreams,
		},
		Protocol: map[protocol.ID]rcmgr.ResourceLimits{
			directory: {StreamsInbound: directoryStreams, Streams: rcmgr.LimitVal(16 * conns), StreamsOutbound: rcmgr.LimitVal(16 * conns)},
		},
		ProtocolPeer: map[protocol.ID]rcmgr.ResourceLimits{
			directory: {StreamsInbound: directoryPeerStreams, Streams: 2 * peerStreams, StreamsOutbound: 2 * peerStreams},
		},
	}.Build(scale.Scale(systemMemory, 4*conns))
	return rcmgr.NewResourceManager(rcmgr.NewFixedLimiter(limits), rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: perAddress}},
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 56, ConnCount: perAddress}, {PrefixLength: 48, ConnCount: 8 * perAddress}}),
		rcmgr.WithNetworkPrefixLimit(
			[]rcmgr.NetworkPrefixLimit{{Network: loopback4, ConnCount: math.MaxInt}},
			[]rcmgr.NetworkPrefixLimit{{Network: loopback6, ConnCount: math.MaxInt}}),
		rcmgr.WithConnRateLimiters(connRates(perAddress)))
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// connRates lets one address open as many connections at once as it may have,
// and a tenth of it a second after that; libp2p's own figure, one in five
// seconds, starves peers behind one router that start together.
func connRates(perAddress int) *rate.Limiter {
	l := rate.Limit{RPS: float64(perAddress) / 10, Burst: 2 * perAddress}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{{Prefix: loopback4}, {Prefix: loopback6}},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: l}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: l}},
			GracePeriod:      time.Minute,
		},
	}
}

// quicDelay is how long a dial over QUIC waits for the one over TCP to succeed.
const quicDelay = 150 * time.Millisecond

// rankDials dials TCP first where the peer is near, on loopback or in the same
// private network: there it moves about three times as many bytes a second as
// QUIC for the same work. Elsewhere libp2p's own order, QUIC first, stands.
func rankDials(addrs []multiaddr.Multiaddr) []network.AddrDelay {
	var near, far []multiaddr.Multiaddr
	hasTCP := false
	for _, a := range addrs {
		if !manet.IsPrivateAddr(a) && !manet.IsIPLoopback(a) {
			far = append(far, a)
			continue
		}
		near = append(near, a)
		hasTCP = hasTCP || isTCP(a)
	}
	ranked := make([]network.AddrDelay, 0, len(addrs))
	for _, a := range near {
		d := network.AddrDelay{Addr: a}
		if hasTCP && !isTCP(a) {
			d.Delay = quicDelay
		}
		ranked = append(ranked, d)
	}
	if len(far) > 0 {
		ranked = append(ranked, swarm.DefaultDialRanker(far)...)
	}
	slices.SortStableFunc(ranked, func(a, b network.AddrDelay) int { return int(a.Delay - b.Delay) })
	return ranked
}

func isTCP(a multiaddr.Multiaddr) bool {
	_, err := a.ValueForProtocol(multiaddr.P_TCP)
	return err == nil
}
