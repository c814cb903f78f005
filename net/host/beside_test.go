package host

import (
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
)

// Who calls a peer while another call to it fails, which has its addresses forgotten, is
// told where it did not answer, and not that no address is known.
func TestConnectBesideOneThatFails(t *testing.T) {
	h, err := libp2p.New(libp2p.NoListenAddrs)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	nobody := peer.AddrInfo{ID: ID(group.PeerKey{1}), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/9")}}
	var wrong atomic.Value
	for range 5000 {
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if err := Connect(t.Context(), h, nobody); err == nil || !strings.Contains(err.Error(), "tcp/9") {
					wrong.Store(err)
				}
			})
		}
		all.Wait()
	}
	if err := wrong.Load(); err != nil {
		t.Error(err)
	}
}
