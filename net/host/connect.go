package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
)

// Connect makes sure of a connection to a peer, also when the host remembers so many
// addresses already that it takes no more. That it cannot be reached is said in one short
// line: libp2p says it with a line for each address.
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
	known := h.Peerstore()
	known.AddAddrs(info.ID, info.Addrs, peerstore.ConnectedAddrTTL)
	err := h.Connect(ctx, info)
	if now := h.Network().Connectedness(info.ID); now != network.Connected && now != network.Limited {
		known.UpdateAddrs(info.ID, peerstore.ConnectedAddrTTL, peerstore.TempAddrTTL)
	}
	return err
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
