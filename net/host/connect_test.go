package host

import (
	"context"
	"errors"
	"net"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

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

// Addresses are dialled a few at a time, the next ones when these have failed, or do not
// answer for a moment; who answers late is not given up for that.
func TestInSteps(t *testing.T) {
	type answer struct {
		after time.Duration
		err   error
	}
	refused, silent := errors.New("refused"), answer{time.Minute, errors.New("silent")}
	steps := slices.Collect(slices.Chunk([]multiaddr.Multiaddr{
		multiaddr.StringCast("/ip4/9.0.0.1/tcp/1"), multiaddr.StringCast("/ip4/9.0.0.1/tcp/2"), multiaddr.StringCast("/ip4/9.0.0.1/tcp/3"),
	}, 1))
	for name, c := range map[string]struct {
		answers []answer // of what is known before, and of the steps
		tried   int
		took    time.Duration
		err     error
	}{
		"all are silent but the last": {[]answer{silent, silent, silent, {0, nil}}, 4, 3 * notForLong, nil},
		"all refuse but the last":     {[]answer{{0, refused}, {0, refused}, {0, refused}, {0, nil}}, 4, 0, nil},
		"the first one answers late":  {[]answer{{notForLong + 1, nil}, silent, silent, silent}, 2, notForLong + 1, nil},
		"nobody answers":              {[]answer{{0, refused}, silent, silent, silent}, 4, time.Minute + 2*notForLong, refused},
	} {
		synctest.Test(t, func(t *testing.T) {
			var tried atomic.Int32
			begin := time.Now()
			err := inSteps(t.Context(), true, steps, func(ctx context.Context, _ []multiaddr.Multiaddr) error {
				a := c.answers[tried.Add(1)-1]
				select {
				case <-ctx.Done():
					return ctx.Err()
				case <-time.After(a.after):
					return a.err
				}
			})
			if took := time.Since(begin); int(tried.Load()) != c.tried || took != c.took || err != c.err {
				t.Errorf("%s: %d steps in %v, %v", name, tried.Load(), took, err)
			}
		})
	}
}

// What a peer is said to be at is not remembered when it is not there; what was known is.
func TestConnectForgets(t *testing.T) {
	gone, h := hosts(t)
	info := peer.AddrInfo{ID: gone.ID(), Addrs: []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}}
	if err := errors.Join(gone.Close(), h.Network().ClosePeer(info.ID)); err != nil {
		t.Fatal(err)
	}
	h.Peerstore().ClearAddrs(info.ID)
	h.Peerstore().AddAddr(info.ID, multiaddr.StringCast("/ip4/127.0.0.1/tcp/2"), time.Hour)
	if err := Connect(t.Context(), h, info); err == nil {
		t.Fatal("nobody answered")
	}
	if known := h.Peerstore().Addrs(info.ID); len(known) != 1 || known[0].String() != "/ip4/127.0.0.1/tcp/2" {
		t.Errorf("known is %v", known)
	}
}
