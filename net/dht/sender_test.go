package dht

import (
	"sync"
	"testing"

	pb "github.com/libp2p/go-libp2p-kad-dht/pb"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"

	skephost "skep/net/host"
	"skep/test/storetest"
)

// Many questions to one peer at once are all answered, though it takes few streams of one.
func TestManyQuestions(t *testing.T) {
	listening := func(seed uint64) host.Host {
		h, err := skephost.New(skephost.Config{Key: storetest.Key(seed), Listen: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close() })
		return h
	}
	asks, answers := listening(1), listening(2)
	d, err := New(answers, Config{Refresh: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := asks.Connect(t.Context(), peer.AddrInfo{ID: answers.ID(), Addrs: answers.Addrs()}); err != nil {
		t.Fatal(err)
	}
	s := newGuard(asks).sender(asks, []protocol.ID{Prefix + "/kad/1.0.0"}).(*sender)
	var all sync.WaitGroup
	for range 64 {
		all.Go(func() {
			if _, err := s.SendRequest(t.Context(), answers.ID(), pb.NewMessage(pb.Message_FIND_NODE, []byte(asks.ID()), 0)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(s.lines) != 0 {
		t.Errorf("%d peers are still waited for", len(s.lines))
	}
}
