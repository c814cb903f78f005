package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	skephost "skep/net/host"
)

// knownAddrs are addresses of peers of earlier runs, to join by when the
// bootstrap peers are gone.
func (n *network) knownAddrs() []peer.AddrInfo {
	var out []peer.AddrInfo
	for _, p := range n.peers.List() {
		info := peer.AddrInfo{ID: skephost.ID(p.Key)}
		for _, a := range p.Addrs {
			if m, err := multiaddr.NewMultiaddr(a); err == nil {
				info.Addrs = append(info.Addrs, m)
			}
		}
		if len(info.Addrs) > 0 && len(out) < 32 {
			out = append(out, info)
		}
	}
	return out
}

// firstJoin lets those who need the swarm wait, after a start, until the first
// try to join it has ended.
type firstJoin struct {
	mu    sync.Mutex    // guards ended
	ended chan struct{} // nil: no try is to be expected
}

// expect says that a try will come.
func (f *firstJoin) expect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended = make(chan struct{})
}

// end says that the try has ended, however it did.
func (f *firstJoin) end() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended != nil {
		close(f.ended)
		f.ended = nil
	}
}

// firstJoinPatience is the longest that somebody waits for it.
const firstJoinPatience = 10 * time.Second

// wait returns when the try has ended or took long, or when ctx ends.
func (f *firstJoin) wait(ctx context.Context) {
	f.mu.Lock()
	ended := f.ended
	f.mu.Unlock()
	if ended == nil {
		return
	}
	timer := time.NewTimer(firstJoinPatience)
	defer timer.Stop()
	select {
	case <-ended:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// join connects to the swarm; it goes on trying in the background until ctx
// ends, and returns what the first try gave.
func (n *network) join(ctx context.Context) error {
	defer n.first.end()
	known := append(append([]peer.AddrInfo(nil), n.bootstrap...), n.knownAddrs()...)
	first, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err := n.dht.Bootstrap(first, known)
	if err == nil {
		n.survey.Round(ctx)
	}
	return err
}

// stayJoined joins again whenever the routing table has run empty.
func (n *network) stayJoined(ctx context.Context) error {
	wait := 2 * time.Second
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		if n.dht.Size() > 0 || len(n.bootstrap)+n.peers.Len() == 0 {
			wait = 10 * time.Second
			continue
		}
		if err := n.join(ctx); err != nil {
			wait = min(2*wait, 5*time.Minute)
			n.log.Info("not connected to the swarm", "err", err)
		}
	}
}
