package dht

import (
	"context"
	"errors"
	"io"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// The table's library takes messages of 4 MiB and sets their memory aside as
// soon as their length has come. Ours are small: a request has a slot record at
// most, an answer that and some peers, or the holders of a group.
const (
	maxRequest = 32 << 10
	maxAnswer  = 512 << 10
)

// errLong says that a peer sent a message that is longer than any of ours.
var errLong = errors.New("message of the DHT is too long")

// guard is a host whose streams end when a longer message begins.
type guard struct{ host.Host }

// SetStreamHandler implements host.Host.
func (g guard) SetStreamHandler(p protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(p, func(s network.Stream) { handle(&guarded{Stream: s, max: maxRequest}) })
}

// NewStream implements host.Host.
func (g guard) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := g.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &guarded{Stream: s, max: maxAnswer}, nil
}

// guarded follows the messages that come on a stream, each after its length as
// a varint. It is read from one goroutine at a time.
type guarded struct {
	network.Stream
	max    int
	length prefix
	left   int // of the message that is being read
}

// Read implements io.Reader. It returns no byte of a length that is too long.
func (g *guarded) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if g.left > 0 {
		n, err := g.Stream.Read(p[:min(len(p), g.left)])
		g.left -= n
		return n, err
	}
	n, err := io.ReadFull(g.Stream, p[:1])
	if n == 0 {
		return 0, err
	}
	length, ended := g.length.add(p[0])
	if length > g.max {
		_ = g.Stream.Reset()
		return 0, errLong
	}
	if ended {
		g.left = length
	}
	return 1, nil
}

// prefix is a varint of which some bytes were read.
type prefix struct {
	value, shift int
}

// maxShift keeps the value in an int, and above every bound.
const maxShift = 28

// add takes one more byte and returns the value so far, and whether the varint
// has ended; the next byte then begins another.
func (v *prefix) add(b byte) (value int, ended bool) {
	if v.shift > maxShift {
		return 1 << (maxShift + 7), true
	}
	v.value |= int(b&0x7f) << v.shift
	v.shift += 7
	value = v.value
	if b&0x80 == 0 {
		*v, ended = prefix{}, true
	}
	return value, ended
}
