package daemon

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/cmd/skep/home"
	"skep/net/dht"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/test/simnet"
)

// Peers of earlier runs are found before the swarm is joined.
func TestPeersOfEarlierRunsAreFound(t *testing.T) {
	simnet.Simulate(t, 1, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s, h, peer := &swarmOfEvenings{Swarm: swarm, t: t}, home.Dir(t.TempDir()), swarm.Peers[0]
		known := peers.New(peers.Options{})
		known.Seen(peer.Key, peer.Info().Addrs[0].String())
		s.must(h.WriteFile(peersFile, known.Encode()))
		n := s.guest(h, home.Settings{}, keyring.Local{Device: secret.New()})
		defer n.close()
		_, err := n.client.Hello(t.Context(), peer.Key)
		s.must(err)
	})
}

// Who a device joins by is nothing that somebody can see to by his choice of keys.
func TestWhomADeviceJoinsBy(t *testing.T) {
	n := &network{peers: peers.New(peers.Options{})}
	for i := range 400 {
		n.peers.Seen(group.PeerKey{byte(i / 200), byte(i), 1}, fmt.Sprintf("/ip4/9.9.%d.%d/udp/8000/quic-v1", i/200, i%200))
	}
	low := 0
	for _, info := range n.knownAddrs() {
		if k, err := skephost.Key(info.ID); err == nil && k[0] == 0 {
			low++
		}
	}
	if low == 32 {
		t.Error("all 32 are of those whose keys come first")
	}
}

// Joining does not wait for peers of earlier runs that are gone, however many they are.
func TestJoiningAmongManyWhoAreGone(t *testing.T) {
	simnet.Simulate(t, 1, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s, h := &swarmOfEvenings{Swarm: swarm, t: t}, home.Dir(t.TempDir())
		known := peers.New(peers.Options{})
		for i := range 200 {
			known.Seen(group.PeerKey{1, byte(i)}, fmt.Sprintf("/ip4/9.9.9.%d/udp/8000/quic-v1", i))
		}
		s.must(h.WriteFile(peersFile, known.Encode()))
		n := s.guest(h, s.settings(0), keyring.Local{Device: secret.New()})
		defer n.close()
		begin := time.Now()
		s.must(n.join(t.Context()))
		if took := time.Since(begin); took > 3*greetPatience {
			t.Errorf("it took %v", took)
		}
		if p, _ := n.peers.Get(swarm.Peers[0].Key); !p.Asked {
			t.Error("who is there was not greeted")
		}
	})
}

// Of two peers that were to be joined by, the one that was off then is met when it comes,
// though the other one is known: it may be all that is known of a part of the swarm.
func TestPeerToJoinByThatComesLater(t *testing.T) {
	simnet.Simulate(t, 1, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s, keys, on := &swarmOfEvenings{Swarm: swarm, t: t}, keyring.Local{Device: secret.New()}, swarm.Guest(t)
		on.Key = keys.Signer()
		later := fmt.Sprintf("%v/p2p/%v", on.Listen[0], skephost.ID(deviceKey(keys)))
		n := s.guest(home.Dir(t.TempDir()), home.Settings{Bootstrap: append(swarm.Peers[0].Addrs(), later)}, keyring.Local{Device: secret.New()})
		defer n.close()
		ctx, cancel := context.WithCancel(t.Context())
		var services sync.WaitGroup
		serve := func(n *network) {
			for _, one := range n.services() {
				services.Go(func() { _ = one.run(ctx) })
			}
		}
		serve(n)
		<-time.After(time.Hour)
		if n.dht.Size() != 1 {
			t.Errorf("%d peers are known", n.dht.Size())
		}
		x, err := newNetworkOn(home.Dir(t.TempDir()), home.Settings{}, on, discard())
		s.must(err)
		defer x.close()
		serve(x)
		<-time.After(3 * waysEvery)
		if p, _ := n.peers.Get(x.self); p.HelloAt.IsZero() || n.dht.Size() != 2 {
			t.Errorf("the other one is not met: %d peers are known", n.dht.Size())
		}
		cancel()
		services.Wait()
	})
}

// Who gives more addresses to join by is not told how a try ended that did not know
// them, and waits for the next one.
func TestTryThatDidNotKnowTheAddress(t *testing.T) {
	var f firstJoin
	f.expect()
	try := f.begin()
	f.expect() // more addresses, while it is under way
	f.end(try, errSilent)
	if ended, err := f.outcome(); ended {
		t.Errorf("the first try has ended it: %v", err)
	}
	f.end(f.begin(), nil)
	if ended, err := f.outcome(); !ended || err != nil {
		t.Errorf("the second try ended: %v, %v", ended, err)
	}
	f.end(f.begin(), errSilent) // one that nobody expects
	if ended, err := f.outcome(); !ended || !errors.Is(err, errSilent) {
		t.Errorf("the third try ended: %v, %v", ended, err)
	}
}
