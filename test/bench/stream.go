package main

import (
	"context"
	"crypto/ed25519"
	"io"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"

	skephost "skep/net/host"
)

// bareStream measures one libp2p stream over TCP between two hosts of this
// process, with nothing of skep in it.
func bareStream(ctx context.Context, r *report) (float64, error) {
	r.section("A bare libp2p stream, both ends on this machine")
	a, err := bareHost(1)
	if err != nil {
		return 0, err
	}
	defer a.Close()
	b, err := bareHost(2)
	if err != nil {
		return 0, err
	}
	defer b.Close()
	got := make(chan error, 1)
	b.SetStreamHandler("/bench", func(s network.Stream) {
		_, err := io.Copy(io.Discard, s)
		got <- err
		_ = s.Close()
	})
	a.Peerstore().AddAddrs(b.ID(), b.Addrs(), peerstore.PermanentAddrTTL)
	s, err := a.NewStream(ctx, b.ID(), "/bench")
	if err != nil {
		return 0, err
	}
	const size = 1 << 30
	p := randomBytes(chunk)
	begin := time.Now()
	for range size / chunk {
		if _, err := s.Write(p); err != nil {
			return 0, err
		}
	}
	if err := s.CloseWrite(); err != nil {
		return 0, err
	}
	if err := <-got; err != nil {
		return 0, err
	}
	mbs := size / 1e6 / time.Since(begin).Seconds()
	r.rate("1 GiB over TCP", mbs, 0, "")
	return mbs, nil
}

func bareHost(seed byte) (host.Host, error) {
	listen, err := multiaddr.NewMultiaddr("/ip4/127.0.0.1/tcp/0")
	if err != nil {
		return nil, err
	}
	key := make([]byte, ed25519.SeedSize)
	key[0] = seed
	return skephost.New(skephost.Config{Key: ed25519.NewKeyFromSeed(key), Listen: []multiaddr.Multiaddr{listen}})
}
