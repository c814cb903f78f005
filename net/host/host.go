package host

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/p2p/host/peerstore/pstoremem"
	"github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	quic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"
	"github.com/prometheus/client_golang/prometheus"
)

// Config says how a host is built. All but Key may be zero.
type Config struct {
	// Key is the peer's identity.
	Key ed25519.PrivateKey
	// Listen are the addresses to listen on. Nil stands for TCP and QUIC on all
	// interfaces, on the port that goes with the key, so that others find the peer
	// when it is back, or on any if that one is taken; an empty list stands for none:
	// such a peer can ask but not be asked.
	Listen []multiaddr.Multiaddr
	// UserAgent is what the host calls itself; "" stands for "skep".
	UserAgent string
	// Conns is about how many connections are kept; 0 stands for 160. Beyond
	// it, those of least use are closed; at twice as many, new ones are refused.
	Conns int
	// ConnsPerAddress is how many connections one IPv4 address or IPv6 /56 may
	// have, as peers behind one router share it; 0 stands for 64. Loopback is
	// not counted.
	ConnsPerAddress int
	// NAT makes the host ask the router for a port, learn whether it can be
	// reached, and punch holes. It needs other hosts of the public Internet.
	NAT bool
	// HidePrivate keeps addresses that are not globally routable out of what
	// the host tells others. A peer on a LAN or loopback must not set it.
	HidePrivate bool
	// Metrics is where libp2p registers its metrics; nil for nowhere.
	Metrics prometheus.Registerer
	// Resources replaces the limits of this package; tests on a simulated
	// network, where every peer shares one process, set NullResourceManager.
	Resources network.ResourceManager
	// Options are applied last.
	Options []libp2p.Option
}

// Format hides the key from every formatting verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "host.Config(…)") }

const (
	defaultAgent = "skep"
	defaultConns = 160
	graceful     = 30 * time.Second // how long a new connection is kept whatever its use
	dialTimeout  = 10 * time.Second
)

// ErrKey says that a key is not an Ed25519 key.
var ErrKey = errors.New("not an Ed25519 key")

// New builds a host, which listens when New returns. The caller closes it.
func New(c Config) (host.Host, error) {
	opts, err := c.options()
	if err == nil {
		err = free(c.Listen)
	}
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	h, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("host: %w", err)
	}
	return h, nil
}

func (c Config) options() ([]libp2p.Option, error) {
	if len(c.Key) != ed25519.PrivateKeySize {
		return nil, ErrKey
	}
	key, err := crypto.UnmarshalEd25519PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	conns := orElse(c.Conns, defaultConns)
	cm, err := connmgr.NewConnManager(conns*3/4, conns, connmgr.WithGracePeriod(graceful))
	if err != nil {
		return nil, err
	}
	res := c.Resources
	if res == nil {
		if res, err = newResources(conns, orElse(c.ConnsPerAddress, defaultPerAddress)); err != nil {
			return nil, err
		}
	}
	known, err := pstoremem.NewPeerstore(pstoremem.WithMaxAddresses(maxAddresses))
	if err != nil {
		return nil, err
	}
	opts := []libp2p.Option{
		libp2p.Identity(key),
		libp2p.Peerstore(known),
		libp2p.UserAgent(orElse(c.UserAgent, defaultAgent)),
		libp2p.Security(libp2ptls.ID, newBatchedTLS),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(quic.NewTransport),
		libp2p.ConnectionManager(cm),
		libp2p.ResourceManager(res),
		libp2p.NonPublicAddrPublishing(!c.HidePrivate),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankDials)),
		// After a hundred addresses where nobody is, dialling over UDP or IPv6
		// would be given up: anybody could make them up.
		libp2p.UDPBlackHoleSuccessCounter(nil),
		libp2p.IPv6BlackHoleSuccessCounter(nil),
		c.listen(),
	}
	if c.Metrics == nil {
		opts = append(opts, libp2p.DisableMetrics())
	} else {
		opts = append(opts, libp2p.PrometheusRegisterer(c.Metrics))
	}
	if c.NAT {
		opts = append(opts, libp2p.NATPortMap(), libp2p.EnableHolePunching(), libp2p.EnableAutoNATv2())
	}
	return append(opts, c.Options...), nil
}

func (c Config) listen() libp2p.Option {
	switch {
	case c.Listen == nil:
		return libp2p.ListenAddrs(usual(c.Key.Public().(ed25519.PublicKey))...)
	case len(c.Listen) == 0:
		return libp2p.NoListenAddrs
	}
	return libp2p.ListenAddrs(c.Listen...)
}

func orElse[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}
