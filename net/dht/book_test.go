package dht_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
	"google.golang.org/protobuf/proto"

	"skep/chunker/group"
	"skep/net/dht"
	skephost "skep/net/host"
	"skep/test/simnet"
)

// announce says to a peer that from holds a group, at these addresses.
func announce(t *testing.T, from host.Host, to *simnet.Peer, id group.ID, addrs []multiaddr.Multiaddr) {
	t.Helper()
	m := pb.NewMessage(pb.Message_ADD_PROVIDER, dht.Key(id).Hash(), 0)
	m.ProviderPeers = pb.RawPeerInfosToPBPeers([]peer.AddrInfo{{ID: from.ID(), Addrs: addrs}})
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := from.Connect(t.Context(), to.Info()); err != nil {
		t.Fatal(err)
	}
	st, err := from.NewStream(t.Context(), to.Host.ID(), protocol)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := st.Write(append(binary.AppendUvarint(nil, uint64(len(b))), b...)); err != nil {
		t.Fatal(err)
	}
	_ = st.CloseWrite()
}

// Many that say to hold a group, at addresses of any length, hide nobody who does.
func TestLongAddresses(t *testing.T) {
	simnet.Simulate(t, 3, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		id := group.ID{1, 2, 3}
		s.Peers[1].DHT.Provide(id)
		if err := s.Peers[1].DHT.Announced(t.Context()); err != nil {
			t.Fatal(err)
		}
		long := []multiaddr.Multiaddr{multiaddr.StringCast("/dns4/" + strings.Repeat("x", 8000) + "/tcp/1000")}
		for n := range 70 {
			h := s.Stranger(t, n)
			defer h.Close()
			for _, p := range s.Peers {
				announce(t, h, p, id, long)
			}
		}
		time.Sleep(5 * time.Second)
		found, err := s.Add(t).DHT.FindHolders(t.Context(), id, 4096)
		if !slices.Contains(found, s.Peers[1].Key) {
			t.Errorf("the one who holds it is not among %d, %v", len(found), err)
		}
	})
}

// What is announced is not put into the host's book of addresses, which would be full.
func TestAnnouncedAddresses(t *testing.T) {
	simnet.Simulate(t, 2, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		h := s.Stranger(t, 0)
		defer h.Close()
		key, err := skephost.Key(h.ID())
		if err != nil {
			t.Fatal(err)
		}
		id := group.ID{1, 2, 3}
		at := multiaddr.StringCast("/ip4/8.8.4.4/tcp/1234")
		for _, p := range s.Peers {
			announce(t, h, p, id, []multiaddr.Multiaddr{at})
		}
		time.Sleep(5 * time.Second)
		if slices.ContainsFunc(s.Peers[0].Host.Peerstore().Addrs(h.ID()), at.Equal) {
			t.Error("it is")
		}
		reader := s.Add(t)
		if _, err := reader.DHT.FindHolders(t.Context(), id, 10); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(reader.DHT.Known(key), at.Equal) {
			t.Error("who looks for the holder does not learn where it is")
		}
	})
}

// A peer whose book of addresses others have filled finds and reaches others all the same.
func TestFullBook(t *testing.T) {
	simnet.Simulate(t, 6, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, s *simnet.Swarm) {
		victim, other := s.Peers[0], s.Stranger(t, 0)
		defer other.Close()
		book := victim.Host.Peerstore()
		for n := range 800 {
			var addrs []multiaddr.Multiaddr
			for i := range 64 {
				addrs = append(addrs, multiaddr.StringCast(fmt.Sprintf("/ip4/8.8.%d.%d/tcp/%d", n>>8, n&255, 1+i)))
			}
			book.AddAddrs(skephost.ID(group.PeerKey{1, byte(n), byte(n >> 8)}), addrs, 24*time.Hour)
		}
		if err := other.Connect(t.Context(), s.Peers[3].Info()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second) // until they know each other
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		key, err := skephost.Key(other.ID())
		if err != nil {
			t.Fatal(err)
		}
		found, err := victim.DHT.FindPeer(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range victim.Host.Network().ConnsToPeer(other.ID()) {
			_ = c.Close() // the lookup may have met it
		}
		time.Sleep(time.Second)
		book.ClearAddrs(other.ID())
		if err := skephost.Connect(ctx, victim.Host, found); err != nil {
			t.Error(err)
		}
	})
}
