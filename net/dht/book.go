package dht

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/simplelru"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"

	skephost "skep/net/host"
)

// Of one peer so many addresses are taken from one message and told in an answer, and so
// many bytes of them: an answer with mostBelow holders and more is within maxAnswer then,
// whatever they say of themselves.
const (
	mostAddresses    = 16
	mostAddressBytes = 512
)

// few are those of some addresses that are taken or told: all, or the public ones first.
func few(addrs []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	total := 0
	for _, a := range addrs {
		total += len(a.Bytes())
	}
	if len(addrs) <= mostAddresses && total <= mostAddressBytes {
		return addrs
	}
	ordered := slices.Clone(addrs)
	slices.SortStableFunc(ordered, func(a, b multiaddr.Multiaddr) int { return cmp.Compare(nearness(a), nearness(b)) })
	var out []multiaddr.Multiaddr
	left := mostAddressBytes
	for _, a := range ordered {
		if n := len(a.Bytes()); n <= left && len(out) < mostAddresses {
			out = append(out, a)
			left -= n
		}
	}
	return out
}

// nearness is 0 for a public address, 2 for one of this machine alone.
func nearness(a multiaddr.Multiaddr) int {
	switch {
	case manet.IsPublicAddr(a):
		return 0
	case manet.IsIPLoopback(a):
		return 2
	}
	return 1
}

// told are addresses of peers that others have told. When there are many, those go that
// were told longest ago: nobody can keep new ones out.
type told struct {
	limit int // addresses in each of the maps, about
	each  int // addresses of one peer

	mu            sync.Mutex // guards the fields below
	recent, older map[peer.ID][]multiaddr.Multiaddr
	n             int // addresses in recent
}

func newTold(limit, each int) *told {
	return &told{limit: limit, each: each, recent: map[peer.ID][]multiaddr.Multiaddr{}}
}

// add takes note of addresses of a peer; they count before what was told earlier.
func (t *told) add(p peer.ID, addrs []multiaddr.Multiaddr) {
	if len(addrs) == 0 {
		return // else peers that nobody has addresses of would count as nothing, and stay
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := joined(t.each, addrs, t.recent[p], t.older[p])
	if t.n >= t.limit {
		t.older, t.recent, t.n = t.recent, map[peer.ID][]multiaddr.Multiaddr{}, 0
	}
	t.n += len(all) - len(t.recent[p])
	t.recent[p] = all
}

func (t *told) of(p peer.ID) []multiaddr.Multiaddr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return joined(t.each, t.recent[p], t.older[p])
}

// joined are so many addresses of several lists at most, each once, the first lists first.
func joined(most int, lists ...[]multiaddr.Multiaddr) (out []multiaddr.Multiaddr) {
	for _, l := range lists {
		for _, a := range l {
			if len(out) < most && !slices.ContainsFunc(out, a.Equal) {
				out = append(out, a)
			}
		}
	}
	return out
}

// book is what the directory knows of addresses: beside those in the host's book, which
// takes no more when anybody has filled it, those that peers announced with their records,
// which are not put there, and those that were told in answers to what we asked.
type book struct {
	peerstore.Peerstore
	announced, found *told
}

func newBook(p peerstore.Peerstore) *book {
	return &book{Peerstore: p, announced: newTold(32<<10, mostAddresses), found: newTold(16<<10, 4*mostAddresses)}
}

// AddAddrs implements peerstore.AddrBook. What is announced is to be kept for longer than
// what an answer told.
func (b *book) AddAddrs(p peer.ID, addrs []multiaddr.Multiaddr, ttl time.Duration) {
	addrs = few(addrs)
	if ttl > peerstore.TempAddrTTL {
		b.announced.add(p, addrs)
		return
	}
	b.found.add(p, addrs)
	b.Peerstore.AddAddrs(p, addrs, ttl)
}

// told are the addresses of a peer that are known here alone, maybe.
func (b *book) told(p peer.ID) []multiaddr.Multiaddr {
	return joined(5*mostAddresses, b.found.of(p), b.announced.of(p))
}

// Addrs implements peerstore.AddrBook. Of a peer that is connected, the host knows best.
func (b *book) Addrs(p peer.ID) []multiaddr.Multiaddr { return b.PeerInfo(p).Addrs }

// PeerInfo implements peerstore.Peerstore.
func (b *book) PeerInfo(p peer.ID) peer.AddrInfo {
	return peer.AddrInfo{ID: p, Addrs: few(joined(9*mostAddresses, b.Peerstore.Addrs(p), b.told(p)))}
}

// Peerstore implements host.Host.
func (g guard) Peerstore() peerstore.Peerstore { return g.book }

// Connect implements host.Host.
func (g guard) Connect(ctx context.Context, info peer.AddrInfo) error {
	if g.Network().Connectedness(info.ID) != network.Connected {
		info.Addrs = slices.Concat(info.Addrs, g.book.told(info.ID))
	}
	return skephost.Connect(ctx, g.Host, info)
}

// uncached is a cache of the holders of groups that keeps none: it would hold any number
// for a group, and what lies below it, newBounded, is in memory, too.
type uncached struct{ simplelru.LRUCache }

// Add implements simplelru.LRUCache.
func (uncached) Add(_, _ any) bool { return false }

// Get implements simplelru.LRUCache.
func (uncached) Get(any) (any, bool) { return nil, false }
