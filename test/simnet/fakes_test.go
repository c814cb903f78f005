package simnet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/test/storetest"
)

// flooded is a directory in which made-up peers say that they hold a group,
// beside those who do.
type flooded struct {
	*Peer
	fakes []group.PeerKey
}

// newFlooded makes up peers, at addresses where nobody is.
func newFlooded(p *Peer, n int) *flooded {
	f := &flooded{Peer: p}
	for i := range n {
		key := group.PeerKey(storetest.Key(1<<40 + uint64(i)).Public().(ed25519.PublicKey))
		f.fakes = append(f.fakes, key)
		addr := multiaddr.StringCast(fmt.Sprintf("/ip4/9.%d.%d.%d/udp/8000/quic-v1", i>>16, i>>8&255, i&255))
		p.Host.Peerstore().AddAddr(skephost.ID(key), addr, peerstore.PermanentAddrTTL)
	}
	return f
}

func (f *flooded) EachHolder(ctx context.Context, id group.ID, limit int, fn func(group.PeerKey)) error {
	real, err := f.DHT.FindHolders(ctx, id, limit)
	all := append(real, f.fakes...)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for _, p := range all[:min(limit, len(all))] {
		fn(p)
	}
	return err
}

// On a bare machine, that knows neither the holders of a group nor any peer but
// by the directory, a pack is read among two thousand made-up holders.
func TestReadingAmongMadeUpHolders(t *testing.T) {
	if testing.Short() {
		t.Skip("dials two thousand peers")
	}
	Simulate(t, 6, Config{}, Link{}, func(t *testing.T, s *Swarm) {
		l := newLibrary(t, s, 1)
		for _, p := range s.Peers[:5] {
			p.DHT.Provide(l.refs[0].Group)
			if err := p.DHT.Announced(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s.Hangup()
		me := s.Peers[5]
		bare := swarm.New(swarm.Config{Holders: me.Client, Finder: newFlooded(me, 2000), Peers: peers.New(peers.Options{})})
		ref := l.refs[0]
		ref.Slots, ref.Manifest = nil, nil
		begin := time.Now()
		got, err := bare.ReadRange(t.Context(), ref, 0, 100_000)
		if err != nil || !bytes.Equal(got[:1000], l.packs[0].Shards[0][:1000]) {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
		t.Logf("took %v of simulated time", time.Since(begin))
	})
}
