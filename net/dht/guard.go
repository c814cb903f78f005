package dht

import (
	"context"
	"errors"
	"io"
	"maps"
	"sync"
	"time"

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

// Requests of the table that are answered in a second, of one peer and of all, in the long
// run; those of a second at once. Who asks for more waits.
const (
	requestsEach = 200
	requestsAll  = 2000
	requestsLead = time.Second
)

// turns says when requests are answered.
type turns struct {
	mu     sync.Mutex // guards the fields below
	all    time.Time  // until when what was answered lasts, at that pace
	byPeer map[peer.ID]time.Time
}

// wait is for how long the next request of a peer is to wait.
func (t *turns) wait(from peer.ID, now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.byPeer) >= 1024 {
		maps.DeleteFunc(t.byPeer, func(_ peer.ID, until time.Time) bool { return !until.After(now) })
	}
	next := func(until time.Time, each int) time.Time {
		if until.Before(now) {
			until = now
		}
		return until.Add(time.Second / time.Duration(each))
	}
	mine := next(t.byPeer[from], requestsEach)
	t.all, t.byPeer[from] = next(t.all, requestsAll), mine
	return max(0, max(mine.Sub(now), t.all.Sub(now))-requestsLead)
}

// errLong says that a peer sent a message that is longer than any of ours.
var errLong = errors.New("message of the DHT is too long")

// guard is a host on which the streams of others end when a longer request begins, requests
// wait for their turn, and addresses are known by book.
type guard struct {
	host.Host
	turns  *turns
	asking *asking
	book   *book
}

func newGuard(h host.Host) guard {
	return guard{h, &turns{byPeer: map[peer.ID]time.Time{}}, &asking{since: map[*guarded]time.Time{}}, newBook(h.Peerstore())}
}

// SetStreamHandler implements host.Host.
func (g guard) SetStreamHandler(p protocol.ID, handle network.StreamHandler) {
	g.Host.SetStreamHandler(p, func(s network.Stream) {
		in := &guarded{Stream: s, from: s.Conn().RemotePeer(), max: maxRequest}
		in.turn = func() {
			g.asking.hear(in, time.Now())
			time.Sleep(g.turns.wait(in.from, time.Now()))
		}
		g.asking.enter(in, time.Now())
		defer g.asking.leave(in)
		handle(in)
	})
}

// NewStream implements host.Host.
func (g guard) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if err := g.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
		return nil, err
	}
	return g.Host.NewStream(ctx, p, ids...)
}

// guarded follows the messages that come on a stream, each after its length as
// a varint. It is read from one goroutine at a time.
type guarded struct {
	network.Stream
	from   peer.ID // who asks
	max    int
	turn   func() // returns when a message may be read; nil: at once
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
		if g.turn != nil {
			g.turn()
		}
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
