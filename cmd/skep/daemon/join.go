package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	lp "github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/net/swarm"
)

// knownAddrs are addresses of peers of earlier runs, to join by when the
// bootstrap peers are gone: of those that were silent for the shortest time, some picked
// at random.
func (n *network) knownAddrs() []peer.AddrInfo {
	known := n.peers.List()
	rand.Shuffle(len(known), func(i, j int) { known[i], known[j] = known[j], known[i] })
	slices.SortStableFunc(known, func(a, b peers.Peer) int { return cmp.Compare(a.Silent, b.Silent) })
	infos := addrsOf(known)
	return infos[:min(len(infos), 32)]
}

// addrsOf are the addresses of those peers that have some.
func addrsOf(all []peers.Peer) (out []peer.AddrInfo) {
	for _, p := range all {
		if addrs := multiaddrs(p.Addrs); len(addrs) > 0 {
			out = append(out, peer.AddrInfo{ID: skephost.ID(p.Key), Addrs: addrs})
		}
	}
	return out
}

// multiaddrs are those of some addresses that can be read.
func multiaddrs(addrs []string) (out []multiaddr.Multiaddr) {
	for _, a := range addrs {
		if m, err := multiaddr.NewMultiaddr(a); err == nil {
			out = append(out, m)
		}
	}
	return out
}

// known are addresses of a peer: those that worked, then those that others told.
func (n *network) known(k group.PeerKey) (out []multiaddr.Multiaddr) {
	if p, ok := n.peers.Get(k); ok {
		out = multiaddrs(p.Addrs)
	}
	return append(out, n.dht.Known(k)...)
}

// ways are the addresses of peers that the swarm is joined by first.
type ways struct {
	added chan struct{} // has one element when some were added since they were used

	mu    sync.Mutex
	addrs []peer.AddrInfo // guarded by mu
}

func newWays() ways { return ways{added: make(chan struct{}, 1)} }

// add takes in full addresses of peers, and reports whether some are new.
func (w *ways) add(lines []string) (isNew bool, err error) {
	more, err := skephost.ParseAddrs(lines)
	if err != nil {
		return false, fmt.Errorf("bootstrap address: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	more = slices.DeleteFunc(more, func(a peer.AddrInfo) bool {
		return slices.ContainsFunc(w.addrs, func(b peer.AddrInfo) bool { return a.String() == b.String() })
	})
	w.addrs = append(more, w.addrs...)
	return len(more) > 0, nil
}

func (w *ways) list() []peer.AddrInfo {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.addrs)
}

// joinBy has the swarm joined by more addresses, at once.
func (n *network) joinBy(lines []string) error {
	if isNew, err := n.ways.add(lines); err != nil || !isNew {
		return err
	}
	n.first.expect()
	select {
	case n.ways.added <- struct{}{}:
	default:
	}
	return nil
}

// knowsNobody reports whether there is nobody to join the swarm by.
func (n *network) knowsNobody() bool { return len(n.ways.list())+n.peers.Len() == 0 }

// firstJoin lets those who need the swarm wait, after a start and when there are more
// addresses to join by, until the try to join it that knows them all has ended.
type firstJoin struct {
	mu       sync.Mutex    // guards all below
	expected int           // how often a try was expected
	ended    chan struct{} // nil: no try is to be expected
	err      error         // that the last try ended with
}

// expect says that a try will begin.
func (f *firstJoin) expect() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected++
	if f.ended == nil {
		f.ended = make(chan struct{})
	}
}

// begin says that a try begins, which knows all addresses that there are; what it
// returns is for end.
func (f *firstJoin) begin() (try int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.expected
}

// end says that the try has ended, and how. If another one was expected since it began,
// that one is waited for.
func (f *firstJoin) end(try int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = err
	if f.ended != nil && try == f.expected {
		close(f.ended)
		f.ended = nil
	}
}

// outcome is how the last try ended, if one did.
func (f *firstJoin) outcome() (ended bool, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ended == nil, f.err
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
func (n *network) join(ctx context.Context) (err error) {
	try := n.first.begin()
	defer func() { n.first.end(try, err) }()
	known := append(n.ways.list(), n.knownAddrs()...)
	first, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	err = n.dht.Bootstrap(first, known)
	if err == nil {
		n.greet(ctx)
	}
	return err
}

// greetPatience is how long it is waited for those who are greeted.
const greetPatience = 15 * time.Second

// greet says hello to everybody that is due, and waits for the answers, though not for
// long: of many that are known from earlier runs, most may be gone. They are greeted later.
func (n *network) greet(ctx context.Context) {
	ctx, cancel := context.WithTimeout(swarm.Linger(ctx, silentFor), greetPatience)
	defer cancel()
	n.survey.Round(ctx)
}

// contactPatience is how long it may take until somebody is heard of.
const contactPatience = 2 * time.Second

var errSilent = errors.New("none of the peers that it knows has answered yet")

// contact waits, for a moment, until this peer is connected to another one, and
// returns why it is not. One that knows nobody is alone on purpose.
func (n *network) contact(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, contactPatience)
	defer cancel()
	for !n.knowsNobody() && len(n.host.Network().Peers()) == 0 {
		if ended, err := n.first.outcome(); ended && err != nil {
			return err
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return errSilent
		}
	}
	return nil
}

// How often those are called who are to be joined by and are not connected: soon after a
// start, then every so often, and seldom where the table has many others, as one of them
// may be of use to thousands.
const (
	waysSoon   = time.Minute
	waysEvery  = 10 * time.Minute
	waysSeldom = time.Hour
	manyOthers = 20
)

// keepWays calls, until ctx ends, those whom the swarm was to be joined by, each for itself,
// whoever else is known: one that was off when it was joined, or has moved to where its name
// leads now, may be the only way to another part of the swarm.
func (n *network) keepWays(ctx context.Context) error {
	for wait := waysSoon; ; {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait + rand.N(wait/4)):
		}
		n.callWays(ctx)
		wait = waysEvery
		if n.dht.Size() >= manyOthers {
			wait = waysSeldom
		}
	}
}

// callPatience is how long those have to answer who are called so.
const callPatience = 15 * time.Second

func (n *network) callWays(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, callPatience)
	defer cancel()
	var all sync.WaitGroup
	for _, way := range n.ways.list() {
		if way.ID != n.host.ID() && n.host.Network().Connectedness(way.ID) != lp.Connected {
			all.Go(func() { _ = skephost.Connect(ctx, n.host, way) })
		}
	}
	all.Wait()
}

// stayJoined joins again whenever the routing table has run empty, and when there are
// more addresses to join by.
func (n *network) stayJoined(ctx context.Context) error {
	wait := 2 * time.Second
	for {
		asked := false
		select {
		case <-ctx.Done():
			return nil
		case <-n.ways.added:
			asked, wait = true, 2*time.Second
		case <-time.After(wait):
		}
		if !asked && (n.dht.Size() > 0 || n.knowsNobody()) {
			wait = 10 * time.Second
			continue
		}
		if err := n.join(ctx); err != nil {
			wait = min(2*wait, 5*time.Minute)
			n.log.Info("not connected to the swarm", "err", err)
		}
	}
}
