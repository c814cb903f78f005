package main

import (
	"context"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peerstore"
)

// bareStream is a libp2p stream over TCP between two hosts of this process,
// with nothing of skep in it, nor of how skep sets libp2p up.
type bareStream struct {
	from, to host.Host
	got      chan error // how the receiver's copy ended
}

func newBareStream() (*bareStream, error) {
	from, err := bareHost()
	if err != nil {
		return nil, err
	}
	to, err := bareHost()
	if err != nil {
		return nil, errors.Join(err, from.Close())
	}
	b := &bareStream{from, to, make(chan error, 1)}
	to.SetStreamHandler("/bench", func(s network.Stream) {
		_, err := io.Copy(io.Discard, s)
		b.got <- err
		_ = s.Close()
	})
	from.Peerstore().AddAddrs(to.ID(), to.Addrs(), peerstore.PermanentAddrTTL)
	return b, nil
}

// bareHost is a host as libp2p makes it, on loopback.
func bareHost() (host.Host, error) {
	return libp2p.New(libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay(), libp2p.DisableMetrics())
}

func (b *bareStream) close() { _, _ = b.from.Close(), b.to.Close() }

// send sends 1 GiB and returns MB/s.
func (b *bareStream) send(ctx context.Context) (float64, error) {
	const size = 1 << 30
	p := randomBytes(chunk)
	took, err := timed(func() error {
		s, err := b.from.NewStream(ctx, b.to.ID(), "/bench")
		if err != nil {
			return err
		}
		for range size / chunk {
			if _, err := s.Write(p); err != nil {
				return err
			}
		}
		if err := s.CloseWrite(); err != nil {
			return err
		}
		return <-b.got
	})
	return size / 1e6 / took, err
}

// around runs fn between two transfers and returns their mean: as the machine
// is not equally fast at all times, so what fn does is compared with its own
// time.
func (b *bareStream) around(ctx context.Context, fn func() error) (mbs float64, err error) {
	before, err := b.send(ctx)
	if err != nil {
		return 0, err
	}
	if err := fn(); err != nil {
		return 0, err
	}
	after, err := b.send(ctx)
	return (before + after) / 2, err
}
