package dht_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-msgio/pbio"
	"github.com/multiformats/go-multiaddr"

	"skep/net/dht"
	"skep/test/simnet"
)

// answering has a host answer what is asked of the directory.
func answering(h host.Host, answer func(*pb.Message) *pb.Message) {
	h.SetStreamHandler(protocol, func(st network.Stream) {
		defer st.Close()
		in, out := pbio.NewDelimitedReader(st, 1<<20), pbio.NewDelimitedWriter(st)
		var m pb.Message
		for in.ReadMsg(&m) == nil {
			_ = out.WriteMsg(answer(&m))
		}
	})
}

// nowhere are addresses where nobody is, other ones each time.
func nowhere(told *atomic.Int32) (out []multiaddr.Multiaddr) {
	for range 16 {
		n := told.Add(1)
		out = append(out, multiaddr.StringCast(fmt.Sprintf("/ip4/9.%d.%d.%d/udp/1/quic-v1", n>>16&255, n>>8&255, n&255)))
	}
	return out
}

// hidden has a peer look for another one, of which it knows no address and an honest peer
// does, beside liars that name it where it is not.
func hidden(t *testing.T, liars int, where func(honest *simnet.Peer) []multiaddr.Multiaddr) {
	simnet.Simulate(t, 1, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		honest := s.Peers[0]
		var target peer.ID
		for i := range liars {
			h := s.Stranger(t, i)
			defer h.Close()
			answering(h, func(m *pb.Message) *pb.Message {
				out := pb.NewMessage(m.GetType(), m.GetKey(), 0)
				if target != "" {
					out.CloserPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: target, Addrs: where(honest)}})
				}
				return out
			})
			if err := h.Connect(t.Context(), honest.Info()); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Second)
		looks := s.Add(t)
		time.Sleep(10 * time.Second)
		x := s.Add(t, honest)
		time.Sleep(10 * time.Second)
		part := func() {
			for _, c := range looks.Host.Network().ConnsToPeer(x.Host.ID()) {
				_ = c.Close()
			}
			time.Sleep(20 * time.Minute)
			looks.Host.Peerstore().ClearAddrs(x.Host.ID())
		}
		part()
		target = x.Host.ID()
		for try := range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			_, err := looks.Client.Hello(ctx, x.Key)
			cancel()
			if err != nil {
				t.Errorf("try %d: %v", try, err)
			}
			part()
		}
	})
}

// A peer is reached at once of which only others know an address, though it is in the table.
func TestReachThroughOthers(t *testing.T) { hidden(t, 0, nil) }

// Nobody hides a peer by naming it where it is not.
func TestHiddenPeer(t *testing.T) {
	for _, liars := range []int{1, 4} {
		t.Run(fmt.Sprint(liars), func(t *testing.T) {
			var told atomic.Int32
			hidden(t, liars, func(*simnet.Peer) []multiaddr.Multiaddr { return nowhere(&told) })
		})
	}
}

// Nor by naming it where somebody else is, who answers.
func TestHiddenBehindOther(t *testing.T) {
	hidden(t, 1, func(honest *simnet.Peer) []multiaddr.Multiaddr { return honest.Host.Addrs() })
}
