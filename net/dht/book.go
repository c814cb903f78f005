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
	return within(ordered)
}

// within are the first of some addresses, as many as are taken or told.
func within(addrs []multiaddr.Multiaddr) (out []multiaddr.Multiaddr) {
	left := mostAddressBytes
	for _, a := range addrs {
		if n := len(a.Bytes()); n <= left && len(out) < mostAddresses {
			out = append(out, a)
			left -= n
		}
	}
	return out
}

// mostParts are those of an address of ours; 512 bytes may have hundreds, each with memory
// of its own.
const mostParts = 8

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

// said are the addresses of a peer that one peer told last.
type said struct {
	by    peer.ID
	addrs []multiaddr.Multiaddr
}

// told are addresses of peers that others have told. When there are many, those go that
// were told longest ago: nobody can keep new ones out.
type told struct {
	limit int // addresses in each of the maps, about
	each  int // peers whose word on one peer is kept

	mu            sync.Mutex // guards the fields below
	recent, older map[peer.ID][]said
	n             int // addresses in recent
}

func newTold(limit, each int) *told {
	return &told{limit: limit, each: each, recent: map[peer.ID][]said{}}
}

// add takes note of the addresses of a peer that another one tells, instead of those that
// it told earlier.
func (t *told) add(p, by peer.ID, addrs []multiaddr.Multiaddr) {
	addrs = joined(mostAddresses, slices.DeleteFunc(slices.Clone(addrs), func(a multiaddr.Multiaddr) bool { return len(a) > mostParts }))
	if len(addrs) == 0 {
		return // else peers that nobody has addresses of would count as nothing, and stay
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	all := []said{{by, addrs}}
	for _, s := range t.ofLocked(p) {
		if s.by != by && len(all) < t.each {
			all = append(all, s)
		}
	}
	if t.n >= t.limit {
		t.older, t.recent, t.n = t.recent, map[peer.ID][]said{}, 0
	}
	t.n += number(all) - number(t.recent[p])
	t.recent[p] = all
}

// of is what was told of a peer, the latest first.
func (t *told) of(p peer.ID) []said {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.ofLocked(p)
}

func (t *told) ofLocked(p peer.ID) []said {
	if all, ok := t.recent[p]; ok {
		return all
	}
	return t.older[p]
}

func number(all []said) (n int) {
	for _, s := range all {
		n += len(s.addrs)
	}
	return n
}

// inTurn are the addresses that several told, each once: the first one of everybody, then
// the second ones, and so on, and among these those before the others that more have told.
// Whoever tells many is one among those who tell.
func inTurn(all []said) (out []multiaddr.Multiaddr) {
	times := map[string]int{}
	for _, s := range all {
		for _, a := range s.addrs {
			times[string(a.Bytes())]++
		}
	}
	taken := map[string]bool{}
	for i := range mostAddresses {
		begin := len(out)
		for _, s := range all {
			if i < len(s.addrs) && !taken[string(s.addrs[i].Bytes())] {
				taken[string(s.addrs[i].Bytes())] = true
				out = append(out, s.addrs[i])
			}
		}
		slices.SortStableFunc(out[begin:], func(a, b multiaddr.Multiaddr) int {
			return cmp.Compare(times[string(b.Bytes())], times[string(a.Bytes())])
		})
	}
	return out
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

// book is what the directory knows of addresses: beside those in the host's book, those
// that peers announced with their records, and those that were told in answers to what we
// asked. Neither is put into the host's book, which takes no more when anybody has filled
// it, and all of whose addresses are dialled together.
type book struct {
	peerstore.Peerstore
	announced, found *told
}

// mostTellers are those whose word on one peer is kept: of those who are asked in one lookup,
// most.
const mostTellers = 24

func newBook(p peerstore.Peerstore) *book {
	return &book{Peerstore: p, announced: newTold(32<<10, 1), found: newTold(16<<10, mostTellers)}
}

// AddAddrs implements peerstore.AddrBook. What is announced, by the peer itself, is to be
// kept for longer than what an answer told, which hear has taken in already.
func (b *book) AddAddrs(p peer.ID, addrs []multiaddr.Multiaddr, ttl time.Duration) {
	if ttl > peerstore.TempAddrTTL {
		b.announced.add(p, p, few(addrs))
	}
}

// hear takes note of addresses that an answer of a peer has of another one. Names are not
// asked for on a stranger's word, and have any number of addresses.
func (b *book) hear(by peer.ID, of peer.AddrInfo) {
	b.found.add(of.ID, by, few(slices.DeleteFunc(of.Addrs, func(a multiaddr.Multiaddr) bool {
		first, _ := multiaddr.SplitFirst(a)
		return first == nil || first.Code() != multiaddr.P_IP4 && first.Code() != multiaddr.P_IP6
	})))
}

// mostDialled are the addresses of one peer that are dialled on the word of others.
const mostDialled = 2 * mostAddresses

// told are the addresses of a peer that are known here alone, maybe, in the order in which
// they are to be dialled.
func (b *book) told(p peer.ID) []multiaddr.Multiaddr {
	return joined(mostDialled, inTurn(slices.Concat(b.announced.of(p), b.found.of(p))))
}

// Addrs implements peerstore.AddrBook. Of a peer that is connected, the host knows best.
func (b *book) Addrs(p peer.ID) []multiaddr.Multiaddr { return b.PeerInfo(p).Addrs }

// PeerInfo implements peerstore.Peerstore. What others told is told on only of a peer whose
// own word is not known: else one who makes up addresses would speak through everybody.
func (b *book) PeerInfo(p peer.ID) peer.AddrInfo {
	addrs := joined(2*mostAddresses, few(b.Peerstore.Addrs(p)), inTurn(b.announced.of(p)))
	if len(addrs) == 0 {
		addrs = b.told(p)
	}
	return peer.AddrInfo{ID: p, Addrs: within(addrs)}
}

// Peerstore implements host.Host.
func (g guard) Peerstore() peerstore.Peerstore { return g.book }

// Connect implements host.Host.
func (g guard) Connect(ctx context.Context, info peer.AddrInfo) error {
	if g.Network().Connectedness(info.ID) == network.Connected {
		return nil
	}
	info.Addrs = slices.Concat(info.Addrs, g.book.told(info.ID))
	return skephost.Connect(ctx, g.Host, info)
}

// uncached is a cache of the holders of groups that keeps none: it would hold any number
// for a group, and what lies below it, newBounded, is in memory, too.
type uncached struct{ simplelru.LRUCache }

// Add implements simplelru.LRUCache.
func (uncached) Add(_, _ any) bool { return false }

// Get implements simplelru.LRUCache.
func (uncached) Get(any) (any, bool) { return nil, false }
