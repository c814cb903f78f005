package dht

import (
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// Of peers without an address, of whom anybody can name any number, or with such alone as no
// address is, nothing is kept, and they have nothing else forgotten.
func TestToldOfPeersWithoutAddresses(t *testing.T) {
	b := newTold(4, 2)
	at := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/8.8.4.4/tcp/1234")}
	b.add("known", "teller", at)
	for i := range 100 {
		b.add(peer.ID(rune('A'+i)), "teller", nil)
		b.add(peer.ID(rune('A'+i)), "teller", []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/8.8.4.4/udp/1" + strings.Repeat("/quic-v1", 100))})
	}
	if len(b.recent)+len(b.older) != 1 || len(b.of("known")) != 1 {
		t.Errorf("%d peers are kept, and %d addresses of who has one", len(b.recent)+len(b.older), len(b.of("known")))
	}
}
