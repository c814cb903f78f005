package host

import (
	"fmt"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
)

// idPrefix is what precedes an Ed25519 public key in its peer.ID: an identity
// multihash of 36 bytes of libp2p's public key message.
const idPrefix = "\x00\x24\x08\x01\x12\x20"

// ID is the libp2p form of a peer key.
func ID(k group.PeerKey) peer.ID { return peer.ID(idPrefix + string(k[:])) }

// Key is the inverse of ID. It returns ErrKey for a peer whose identity is of
// another kind.
func Key(id peer.ID) (group.PeerKey, error) {
	if len(id) != len(idPrefix)+len(group.PeerKey{}) || string(id[:len(idPrefix)]) != idPrefix {
		return group.PeerKey{}, fmt.Errorf("peer %v: %w", id, ErrKey)
	}
	return group.PeerKey([]byte(id[len(idPrefix):])), nil
}

// Addrs are the full addresses of a host, such as a bootstrap list has them.
func Addrs(h host.Host) []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: h.Addrs()})
	if err != nil {
		return nil // a host's own id is always valid
	}
	return addrs
}

// FullAddrs makes addresses of a peer such as a bootstrap list has them. What is
// no address is left out.
func FullAddrs(k group.PeerKey, addrs []string) []string {
	out := make([]string, 0, len(addrs))
	for _, a := range addrs {
		m, err := multiaddr.NewMultiaddr(a)
		if err != nil {
			continue
		}
		full, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: ID(k), Addrs: []multiaddr.Multiaddr{m}})
		if err == nil {
			out = append(out, full[0].String())
		}
	}
	return out
}

// Reachable is an address of a connected peer at which it can be called; "" if
// none is known. Who called us did so from a port where nobody may listen: what
// it says to listen on counts then, if that is on the machine that called. Else it
// could be anywhere for all that it says.
func Reachable(h host.Host, id peer.ID) string {
	conns, said := h.Network().ConnsToPeer(id), h.Peerstore().Addrs(id)
	best := ""
	for _, c := range conns {
		if c.Stat().Direction == network.DirOutbound {
			return c.RemoteMultiaddr().String()
		}
		for _, a := range said {
			if sameMachine(a, c.RemoteMultiaddr()) {
				best = a.String()
			}
		}
	}
	return best
}

// sameMachine reports whether two addresses are of one IP address.
func sameMachine(a, b multiaddr.Multiaddr) bool {
	x, _ := multiaddr.SplitFirst(a)
	y, _ := multiaddr.SplitFirst(b)
	return x.Equal(y)
}

// ParseAddrs reads full addresses (/ip4/…/p2p/…), one or more for each peer.
func ParseAddrs(lines []string) ([]peer.AddrInfo, error) {
	addrs := make([]multiaddr.Multiaddr, 0, len(lines))
	for _, l := range lines {
		a, err := multiaddr.NewMultiaddr(l)
		if err == nil {
			_, err = peer.AddrInfoFromP2pAddr(a)
		}
		if err != nil {
			return nil, fmt.Errorf("address %q: %w; a full address is such as /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…", l, err)
		}
		addrs = append(addrs, a)
	}
	infos, err := peer.AddrInfosFromP2pAddrs(addrs...)
	if err != nil {
		return nil, fmt.Errorf("addresses of peers: %w", err)
	}
	return infos, nil
}
