package host

import (
	"crypto/ed25519"
	"encoding/binary"
	"fmt"

	"github.com/multiformats/go-multiaddr"
)

// The ports that go with keys: from where those end that services are known by, to
// where the system begins to take them for connections.
const (
	firstPort = 20000
	ports     = 32768 - firstPort
)

// portOf is the port that goes with a key.
func portOf(key ed25519.PublicKey) int {
	return firstPort + int(binary.BigEndian.Uint32(key)%ports)
}

// usual are the addresses to listen on where nobody named any.
func usual(key ed25519.PublicKey) []multiaddr.Multiaddr {
	if own := everywhere(portOf(key)); free(own) == nil {
		return own
	}
	return everywhere(0)
}

// everywhere are the addresses of a port of all interfaces; 0 is any.
func everywhere(port int) []multiaddr.Multiaddr {
	var all []multiaddr.Multiaddr
	for _, form := range []string{"/ip4/0.0.0.0/tcp/%d", "/ip4/0.0.0.0/udp/%d/quic-v1", "/ip6/::/tcp/%d", "/ip6/::/udp/%d/quic-v1"} {
		all = append(all, multiaddr.StringCast(fmt.Sprintf(form, port)))
	}
	return all
}
