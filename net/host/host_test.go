package host

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
	"pgregory.net/rapid"

	"skep/chunker/group"
	"skep/chunker/secret"
)

func TestIDs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed := rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "seed")
		priv := secret.Key(seed).Signer()
		lp, err := crypto.UnmarshalEd25519PrivateKey(priv)
		if err != nil {
			t.Fatal(err)
		}
		want, err := peer.IDFromPrivateKey(lp)
		if err != nil {
			t.Fatal(err)
		}
		k, err := Key(want)
		if err != nil || ID(k) != want || string(k[:]) != string(priv[32:]) {
			t.Fatalf("%v became %v and %v, %v", want, k, ID(k), err)
		}
	})
	for _, id := range []peer.ID{"", "x", peer.ID("\x12\x20" + strings.Repeat("a", 32)), ID(group.PeerKey{}) + "x"} {
		if _, err := Key(id); !errors.Is(err, ErrKey) {
			t.Errorf("%q: %v", id, err)
		}
	}
}

func TestNew(t *testing.T) {
	key := secret.New().Signer()
	h, err := New(Config{Key: key, Listen: []multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/127.0.0.1/tcp/0"), multiaddr.StringCast("/ip4/127.0.0.1/udp/0/quic-v1"),
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	addrs := Addrs(h)
	if len(addrs) != 2 {
		t.Fatalf("addresses are %v", addrs)
	}
	lines := []string{addrs[0].String(), addrs[1].String()}
	infos, err := ParseAddrs(lines)
	if err != nil || len(infos) != 1 || infos[0].ID != h.ID() || len(infos[0].Addrs) != 2 {
		t.Fatalf("%v became %v, %v", lines, infos, err)
	}
	other, err := New(Config{Key: secret.New().Signer(), Listen: []multiaddr.Multiaddr{}})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.Connect(t.Context(), infos[0]); err != nil {
		t.Fatal(err)
	}
	conn := other.Network().ConnsToPeer(h.ID())[0]
	if !isTCP(conn.RemoteMultiaddr()) {
		t.Errorf("a near peer was dialled at %v", conn.RemoteMultiaddr())
	}
}

func TestBadConfig(t *testing.T) {
	if _, err := New(Config{}); !errors.Is(err, ErrKey) {
		t.Errorf("no key: %v", err)
	}
	for _, line := range []string{"", "nonsense", "/ip4/127.0.0.1/tcp/1", "/ip4/300.0.0.1/tcp/1/p2p/x"} {
		if _, err := ParseAddrs([]string{line}); err == nil {
			t.Errorf("%q was taken for an address", line)
		}
	}
}

func TestRankDials(t *testing.T) {
	ranked := rankDials([]multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/192.168.1.2/udp/1/quic-v1"), multiaddr.StringCast("/ip4/192.168.1.2/tcp/1"),
		multiaddr.StringCast("/ip4/8.8.8.8/tcp/1"), multiaddr.StringCast("/ip4/8.8.8.8/udp/1/quic-v1"),
	})
	if len(ranked) != 4 || ranked[0].Delay != 0 {
		t.Fatalf("ranked %v", ranked)
	}
	for _, a := range ranked {
		near := strings.Contains(a.Addr.String(), "192.168")
		if near && isTCP(a.Addr) != (a.Delay == 0) {
			t.Errorf("near %v waits %v", a.Addr, a.Delay)
		}
	}
	if only := rankDials([]multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/udp/1/quic-v1")}); only[0].Delay != 0 {
		t.Errorf("the only address waits %v", only[0].Delay)
	}
}

// hosts are two that are connected.
func hosts(t *testing.T) (a, b host.Host) {
	t.Helper()
	a = listening(t)
	return a, dial(t, a)
}

func listening(t *testing.T) host.Host {
	t.Helper()
	h, err := New(Config{Key: secret.New().Signer(), Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

// dial returns another host, connected to one.
func dial(t *testing.T, to host.Host) host.Host {
	t.Helper()
	h := listening(t)
	if err := h.Connect(t.Context(), peer.AddrInfo{ID: to.ID(), Addrs: to.Addrs()}); err != nil {
		t.Fatal(err)
	}
	return h
}

// One peer has so many streams towards us and no more, fewer of the directory,
// and what it opens beyond that is refused while others go on.
func TestStreamsOfOnePeer(t *testing.T) {
	for p, most := range map[protocol.ID]int{directory: directoryPeerStreams, "/other": peerStreams} {
		us, them := hosts(t)
		us.SetStreamHandler(p, func(s network.Stream) { _, _ = s.Write([]byte("y")) })
		open := 0
		for range 2*most + 4 {
			s, err := them.NewStream(t.Context(), us.ID(), p)
			if err != nil {
				continue
			}
			_ = s.SetDeadline(time.Now().Add(30 * time.Second))
			if _, err := s.Write([]byte("x")); err != nil {
				continue
			}
			if n, _ := s.Read(make([]byte, 1)); n == 1 {
				open++
			}
		}
		if open > most || open < most/2 {
			t.Errorf("%s: %d streams are open, at most %d", p, open, most)
		}
	}
}

// Connections on which nothing is said, and streams on which nothing is asked for, do
// not keep others out.
func TestSilentStrangers(t *testing.T) {
	us, honest := hosts(t)
	at, err := manet.ToNetAddr(us.Addrs()[0])
	if err != nil {
		t.Fatal(err)
	}
	for range 60 {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for range 6 {
		silent := dial(t, us)
		for range peerStreams - 2 {
			s, err := silent.Network().NewStream(t.Context(), us.ID())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := s.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
		}
	}
	us.SetStreamHandler("/asked", func(s network.Stream) { _, _ = s.Write([]byte("y")) })
	for _, them := range []host.Host{honest, dial(t, us)} {
		s, err := them.NewStream(t.Context(), us.ID(), "/asked")
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := s.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if _, err := s.Read(make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
}

// Connections of one peer, and of all, are bounded.
func TestConnsOfOnePeer(t *testing.T) {
	us, them := hosts(t)
	for range 3 * peerConns {
		_, _ = them.Network().DialPeer(network.WithForceDirectDial(t.Context(), "more"), us.ID())
	}
	if n := len(us.Network().ConnsToPeer(them.ID())); n > peerConns {
		t.Errorf("%d connections of one peer", n)
	}
}

// Addresses that others tell do not fill the memory.
func TestAddressesAreBounded(t *testing.T) {
	us, _ := hosts(t)
	total := 0
	for i := range 1200 {
		id := ID(group.PeerKey{byte(i), byte(i >> 8)})
		var told []multiaddr.Multiaddr
		for j := range 100 {
			told = append(told, multiaddr.StringCast(fmt.Sprintf("/ip4/8.%d.%d.%d/tcp/%d", i>>8, i&255, j, j+1)))
		}
		us.Peerstore().AddAddrs(id, told, time.Hour)
		n := len(us.Peerstore().Addrs(id))
		if n > 64 {
			t.Fatalf("%d addresses of one peer", n)
		}
		total += n
	}
	if total > maxAddresses+64 || total < maxAddresses*9/10 { // the last one to come may pass by a few
		t.Errorf("%d addresses are kept", total)
	}
}

// Of who called us and says to listen on another machine, where nobody has met it, no
// address is known: holders are spread by these.
func TestReachableElsewhere(t *testing.T) {
	local := []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
	called, err := New(Config{Key: secret.New().Signer(), Listen: local})
	if err != nil {
		t.Fatal(err)
	}
	defer called.Close()
	said := multiaddr.StringCast("/ip4/198.51.100.7/tcp/4001")
	elsewhere := libp2p.AddrsFactory(func([]multiaddr.Multiaddr) []multiaddr.Multiaddr { return []multiaddr.Multiaddr{said} })
	caller, err := New(Config{Key: secret.New().Signer(), Listen: local, Options: []libp2p.Option{elsewhere}})
	if err != nil {
		t.Fatal(err)
	}
	defer caller.Close()
	if err := caller.Connect(t.Context(), peer.AddrInfo{ID: called.ID(), Addrs: called.Addrs()}); err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for len(called.Peerstore().Addrs(caller.ID())) == 0 { // until it has said where
		select {
		case <-deadline:
			t.Fatal("it did not say where it listens")
		case <-time.After(10 * time.Millisecond):
		}
	}
	if got := Reachable(called, caller.ID()); got != "" {
		t.Errorf("it is taken to be at %s", got)
	}
}

// A peer that called us is known by where it listens, not by the port that it
// called from.
func TestReachable(t *testing.T) {
	called, caller := hosts(t)
	for by, of := range map[host.Host]host.Host{called: caller, caller: called} {
		deadline := time.After(20 * time.Second)
		for Reachable(by, of.ID()) != of.Addrs()[0].String() { // until it has said where
			select {
			case <-deadline:
				t.Fatalf("%q, it listens on %v", Reachable(by, of.ID()), of.Addrs())
			case <-time.After(10 * time.Millisecond):
			}
		}
	}
	if got := Reachable(called, ID(group.PeerKey{9})); got != "" {
		t.Errorf("a stranger is reached at %s", got)
	}
	k, err := Key(caller.ID())
	if err != nil {
		t.Fatal(err)
	}
	full := FullAddrs(k, []string{"nonsense", caller.Addrs()[0].String()})
	if infos, err := ParseAddrs(full); err != nil || len(infos) != 1 || infos[0].ID != caller.ID() {
		t.Errorf("%q: %v", full, err)
	}
}
