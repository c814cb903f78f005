package simnet

import (
	"context"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/test/storetest"
)

// Config says how the peers of a swarm are built. The zero value is right.
type Config struct {
	// Seed gives the keys of the peers.
	Seed uint64
	// Store makes the store of a peer; nil for one in memory that offers a GiB.
	Store func(i int) holder.Store
	// Host, DHT, Holder and Client configure the parts; keys, directory and
	// finder are filled in.
	Host   skephost.Config
	DHT    dht.Config
	Holder holder.Config
	Client client.Options
}

// A Peer is one full peer.
type Peer struct {
	Key    group.PeerKey
	Host   host.Host
	DHT    *dht.DHT
	Store  holder.Store
	Holder *holder.Holder
	Client *client.Client

	index  int // in the swarm
	cancel context.CancelFunc
	wg     sync.WaitGroup
	once   sync.Once
}

// newPeer builds and starts peer i of a swarm, without joining it.
func newPeer(t testing.TB, c Config, i int) *Peer {
	t.Helper()
	p, err := start(c, i)
	if err != nil {
		t.Fatal(fmt.Errorf("peer %d: %w", i, err))
	}
	return p
}

func start(c Config, i int) (*Peer, error) {
	key := storetest.Key(c.Seed<<20 + uint64(i) + 1)
	c.Host.Key, c.Holder.Key = key, key
	h, err := skephost.New(c.Host)
	if err != nil {
		return nil, err
	}
	d, err := dht.New(h, c.DHT)
	if err != nil {
		return nil, err
	}
	c.Holder.Directory = d
	c.Client.Known, c.Client.Find = d.Known, d.FindPeer
	var s holder.Store = storetest.NewMemory(1 << 30)
	if c.Store != nil {
		s = c.Store(i)
	}
	hold, err := holder.New(h, s, c.Holder)
	if err != nil {
		return nil, err
	}
	k, err := skephost.Key(h.ID())
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Peer{Key: k, Host: h, DHT: d, Store: s, Holder: hold, Client: client.New(h, c.Client), index: i, cancel: cancel}
	p.wg.Go(func() { _ = hold.Run(ctx) })
	return p, nil
}

// Info is where the peer can be reached.
func (p *Peer) Info() peer.AddrInfo { return peer.AddrInfo{ID: p.Host.ID(), Addrs: p.Host.Addrs()} }

// Stop takes the peer out of the swarm, without a word to the others beyond
// the closing of its connections. Stopping it again does nothing.
func (p *Peer) Stop() {
	p.once.Do(func() {
		p.cancel()
		p.wg.Wait()
		_ = p.DHT.Close()
		_ = p.Host.Close()
		if s, ok := p.Store.(io.Closer); ok {
			_ = s.Close()
		}
	})
}

// Addrs are the full addresses at which the peer can be called.
func (p *Peer) Addrs() (out []string) {
	for _, a := range skephost.Addrs(p.Host) {
		out = append(out, a.String())
	}
	return out
}

// A Swarm is a number of peers that know each other through the first.
type Swarm struct {
	Peers  []*Peer
	join   func(i int) (Config, error) // the configuration of peer i
	guests int                         // places that were given to others

	network *simulated // nil on loopback
}

// joinTimeout bounds the joining of a peer.
const joinTimeout = 20 * time.Second

// Add starts one more peer and lets it join through those that are given, or
// the first.
func (s *Swarm) Add(t testing.TB, through ...*Peer) *Peer {
	t.Helper()
	i := len(s.Peers)
	s.Peers = append(s.Peers, nil)
	if len(through) == 0 && i > 0 {
		through = s.Peers[:1]
	}
	return s.start(t, i, through)
}

// Restart starts a peer that was stopped again, with its key, its store and its
// address, and lets it join through others; the first of all needs none.
func (s *Swarm) Restart(t testing.TB, i int, through ...*Peer) *Peer {
	t.Helper()
	s.Peers[i].Stop()
	return s.start(t, i, through)
}

// firstGuest is where the places of those begin that are no peers of the swarm's.
const firstGuest = 1000

// Guest gives a place on the network to a peer that the test builds by itself,
// and tells how its host is to be configured; the key is for the test to fill in.
func (s *Swarm) Guest(t testing.TB) skephost.Config {
	t.Helper()
	c, err := s.join(firstGuest + s.guests)
	if err != nil {
		t.Fatal(err)
	}
	s.guests++
	return c.Host
}

func (s *Swarm) start(t testing.TB, i int, through []*Peer) *Peer {
	t.Helper()
	c, err := s.join(i)
	if err != nil {
		t.Fatal(err)
	}
	p := newPeer(t, c, i)
	s.Peers[i] = p
	var infos []peer.AddrInfo
	for _, b := range through {
		infos = append(infos, b.Info())
	}
	ctx, cancel := context.WithTimeout(t.Context(), joinTimeout)
	defer cancel()
	if err := p.DHT.Bootstrap(ctx, infos); err != nil {
		t.Fatal(fmt.Errorf("peer %d: %w", i, err))
	}
	return p
}

// stop ends all peers.
func (s *Swarm) stop() {
	var wg sync.WaitGroup
	for _, p := range s.Peers {
		wg.Go(p.Stop)
	}
	wg.Wait()
}
