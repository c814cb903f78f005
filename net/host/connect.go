package host

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"
)

// Of the addresses given, atOnce are dialled, and as many more whenever these have failed,
// or have not answered for so long: libp2p dials all that it knows of a peer, eight at a
// time, and waits five seconds for each, so that a few where nobody is would keep it from
// the one that answers.
const (
	atOnce     = 8
	notForLong = 250 * time.Millisecond
)

// Connect makes sure of a connection to a peer, also when the host remembers so many
// addresses already that it takes no more. The addresses that the host knows, those at
// which it was connected and what the peer says of itself, are dialled first and alone for
// a moment, then those given, a few at a time, in their order. None of these is remembered
// if the peer does not answer. That it cannot be reached is said in one short line: libp2p
// says it with a line for each address.
func Connect(ctx context.Context, h host.Host, info peer.AddrInfo) error {
	err := connect(ctx, h, info)
	if dial, ok := errors.AsType[*swarm.DialError](err); ok {
		return &dialError{dial}
	}
	return err
}

// connect gives the addresses the bound that those of connected peers have, which is none,
// until it is known whether it becomes one.
func connect(ctx context.Context, h host.Host, info peer.AddrInfo) error {
	if len(info.Addrs) == 0 || h.Network().Connectedness(info.ID) == network.Connected {
		return h.Connect(ctx, info)
	}
	defer underWay.begin(h, info.ID)()
	known := h.Peerstore()
	before := known.Addrs(info.ID)
	rest := slices.DeleteFunc(slices.Clone(info.Addrs), func(a multiaddr.Multiaddr) bool {
		return slices.ContainsFunc(before, a.Equal)
	})
	if len(rest) == 0 {
		return h.Connect(ctx, peer.AddrInfo{ID: info.ID})
	}
	err := inSteps(ctx, len(before) > 0, slices.Collect(slices.Chunk(rest, atOnce)), func(ctx context.Context, more []multiaddr.Multiaddr) error {
		known.AddAddrs(info.ID, more, peerstore.ConnectedAddrTTL)
		return h.Connect(ctx, peer.AddrInfo{ID: info.ID})
	})
	return err
}

// calls are how many calls by addresses that were given are under way, of a host to a peer.
type calls struct {
	mu sync.Mutex // guards n, and holds up who begins while addresses are forgotten
	n  map[[2]peer.ID]int
}

var underWay = calls{n: map[[2]peer.ID]int{}}

// begin notes a call. What it returns notes its end: if the peer was not reached, the
// addresses are forgotten with the last call that uses them.
func (c *calls) begin(h host.Host, p peer.ID) (end func()) {
	key := [2]peer.ID{h.ID(), p}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.n[key]++
	return func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.n[key]--; c.n[key] > 0 {
			return
		}
		delete(c.n, key)
		if now := h.Network().Connectedness(p); now != network.Connected && now != network.Limited {
			h.Peerstore().UpdateAddrs(p, peerstore.ConnectedAddrTTL, 0)
		}
	}
}

// inSteps dials without more addresses, if it is to, and then with one step after the
// other. It returns nil when a dial succeeded, else the first error, when all are over.
func inSteps(ctx context.Context, without bool, steps [][]multiaddr.Multiaddr, dial func(context.Context, []multiaddr.Multiaddr) error) error {
	if without {
		steps = slices.Insert(steps, 0, nil)
	}
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	over := make(chan error, len(steps))
	var first error
	for under := 0; under > 0 || len(steps) > 0 && ctx.Err() == nil; {
		if len(steps) > 0 {
			step := steps[0]
			steps = steps[1:]
			under++
			all.Go(func() { over <- dial(ctx, step) })
		}
		var next <-chan time.Time
		if len(steps) > 0 {
			next = time.After(notForLong)
		}
		for waiting := true; waiting; {
			select {
			case err := <-over:
				if err == nil {
					return nil
				}
				first = cmp.Or(first, err)
				under--
				waiting = under > 0
			case <-next:
				waiting = false
			}
		}
	}
	return cmp.Or(first, ctx.Err())
}

// dialError is libp2p's, in one line.
type dialError struct{ err *swarm.DialError }

func (e *dialError) Error() string {
	tried := e.err.DialErrors
	if len(tried) == 0 {
		return fmt.Sprintf("peer %v: %s", e.err.Peer, dialCause(e.err.Cause))
	}
	s := fmt.Sprintf("peer %v: %s at %v", e.err.Peer, dialCause(tried[0].Cause), tried[0].Address)
	if more := len(tried) - 1 + e.err.Skipped; more > 0 {
		s += fmt.Sprintf(", nor did it answer at %d more of its addresses", more)
	}
	return s
}

func (e *dialError) Unwrap() error { return e.err }

// dialCause is why a dial failed, in few words.
func dialCause(err error) string {
	errno, isErrno := errors.AsType[syscall.Errno](err)
	timed, isTimed := errors.AsType[net.Error](err)
	switch {
	case isErrno:
		return errno.Error()
	case errors.Is(err, swarm.ErrDialBackoff):
		return "it did not answer a moment ago"
	case errors.Is(err, swarm.ErrNoAddresses), errors.Is(err, swarm.ErrNoGoodAddresses):
		return "no address of it is known"
	case errors.Is(err, context.DeadlineExceeded), isTimed && timed.Timeout():
		return "no answer in time"
	case err == nil:
		return "no answer"
	}
	return err.Error()
}
