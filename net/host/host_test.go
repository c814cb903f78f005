package host

import (
	"errors"
	"strings"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
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
