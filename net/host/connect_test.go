package host

import (
	"context"
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
)

// That a peer cannot be reached is said in one line, with one of its addresses, and in
// few words; whoever wants to know more can unwrap it.
func TestDialErrors(t *testing.T) {
	id := ID(group.PeerKey{1})
	at := func(addr string, why error) swarm.TransportError {
		return swarm.TransportError{Address: multiaddr.StringCast(addr), Cause: why}
	}
	refused := &net.OpError{Op: "dial", Net: "tcp4", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for want, err := range map[string]*swarm.DialError{
		"connection refused at /ip4/127.0.0.1/tcp/1": {Peer: id, DialErrors: []swarm.TransportError{at("/ip4/127.0.0.1/tcp/1", refused)}},
		"no answer in time at /ip4/192.0.2.1/udp/7, nor did it answer at 4 more of its addresses": {Peer: id, Skipped: 3,
			DialErrors: []swarm.TransportError{at("/ip4/192.0.2.1/udp/7", context.DeadlineExceeded), at("/ip4/192.0.2.1/tcp/1", refused)}},
		"it did not answer a moment ago": {Peer: id, Cause: swarm.ErrDialBackoff},
		"no address of it is known":      {Peer: id, Cause: swarm.ErrNoAddresses},
	} {
		short := &dialError{err}
		if got := short.Error(); got != "peer "+id.String()+": "+want {
			t.Errorf("%q, not %q", got, want)
		}
		if !errors.Is(short, err) {
			t.Errorf("%v does not lead to libp2p's error", short)
		}
	}
}

// Nobody listens any more at the address of a host that is gone.
func TestConnectToNobody(t *testing.T) {
	gone, h := hosts(t)
	info := peer.AddrInfo{ID: gone.ID(), Addrs: gone.Addrs()}
	if err := errors.Join(gone.Close(), h.Network().ClosePeer(info.ID)); err != nil {
		t.Fatal(err)
	}
	err := Connect(t.Context(), h, info)
	if err == nil || !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "\n") {
		t.Errorf("it fails with %v", err)
	}
}
