package dht

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ipfs/go-cid"
	kad "github.com/libp2p/go-libp2p-kad-dht"
	"github.com/libp2p/go-libp2p-kad-dht/records"
	record "github.com/libp2p/go-libp2p-record"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/routing"
	"github.com/multiformats/go-multiaddr"
	"github.com/multiformats/go-multihash"

	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/repeat"
)

// Prefix is the prefix of the table's protocol.
const Prefix = "/skep"

// ErrNotFound says that the directory was asked and knows no answer.
var ErrNotFound = errors.New("not found in the DHT")

// Config says how the directory behaves. The zero value is right for the
// Internet, LANs and loopback; tests in simulated time change the intervals.
type Config struct {
	// Now is the clock; nil stands for time.Now.
	Now func() time.Time
	// RecordAge is how long a value is kept after it was last put; 0 stands for
	// 48 h. Keepers must put more often.
	RecordAge time.Duration
	// ProviderAge is how long a provider record is kept; 0 stands for 48 h.
	ProviderAge time.Duration
	// Reprovide is how often a provided group is provided again; 0 stands for 22 h.
	Reprovide time.Duration
	// Refresh is how often the routing table is refreshed; 0 stands for 10 min,
	// a negative one for never: the table then lives on the lookups made.
	Refresh time.Duration
	// Timeout bounds each call that asks the swarm; 0 stands for 30 s.
	Timeout time.Duration
	// Values and Providers bound what is kept for others, in bytes; 0 stands
	// for 16 MiB each.
	Values, Providers int
	// DiversityFilter admits at most two peers of one address group to a bucket
	// of the routing table, three in all: for swarms of thousands on the
	// Internet. It would empty the table of a LAN.
	DiversityFilter bool
}

func (c Config) withDefaults() Config {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&c.RecordAge, 48*time.Hour)
	set(&c.ProviderAge, 48*time.Hour)
	set(&c.Reprovide, 22*time.Hour)
	set(&c.Refresh, 10*time.Minute)
	set(&c.Timeout, 30*time.Second)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Values == 0 {
		c.Values = 16 << 20
	}
	if c.Providers == 0 {
		c.Providers = 16 << 20
	}
	return c
}

// DHT is a peer's part of the directory. It is safe for concurrent use.
type DHT struct {
	host     host.Host
	conf     Config
	table    *kad.IpfsDHT
	book     *book
	announce *repeat.Set[group.ID]

	mu   sync.Mutex // guards boot
	boot []peer.AddrInfo
}

// New starts serving the directory on a host.
func New(h host.Host, c Config) (*DHT, error) {
	d := &DHT{host: h, conf: c.withDefaults()}
	if err := d.start(); err != nil {
		return nil, fmt.Errorf("dht: %w", err)
	}
	return d, nil
}

func (d *DHT) start() error {
	c, g := d.conf, newGuard(d.host)
	opts := []kad.Option{
		kad.ProtocolPrefix(Prefix),
		kad.Mode(kad.ModeServer),
		kad.Validator(record.NamespacedValidator{namespace: validator{now: c.Now}}),
		kad.ValueDatastore(newBounded(c.Values, ownerless)),
		kad.ProviderDatastore(newBounded(c.Providers, provider)),
		kad.MaxRecordAge(c.RecordAge),
		kad.RoutingTableRefreshPeriod(max(c.Refresh, 10*time.Minute)),
		kad.ProviderManagerOpts(records.ProvideValidity(c.ProviderAge), records.CleanupInterval(c.ProviderAge/24),
			records.ProviderAddrTTL(c.ProviderAge/2), records.Cache(uncached{})),
		kad.BootstrapPeersFunc(d.bootstrapPeers),
		kad.WithCustomMessageSender(g.sender),
	}
	if c.Refresh < 0 {
		opts = append(opts, kad.DisableAutoRefresh())
	}
	if c.DiversityFilter {
		opts = append(opts, kad.RoutingTablePeerDiversityFilter(kad.NewRTPeerDiversityFilter(d.host, 2, 3)))
	}
	table, err := kad.New(g, opts...)
	if err != nil {
		return err
	}
	d.table, d.book = table, g.book
	d.announce = repeat.New(c.Reprovide, d.provide)
	return nil
}

// provide puts one provider record: here, so that who asks us is answered, and
// on the peers nearest to the key.
func (d *DHT) provide(ctx context.Context, id group.ID) error {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	return d.table.Provide(ctx, Key(id), true)
}

func (d *DHT) bootstrapPeers() []peer.AddrInfo {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.boot
}

// Close stops serving and waits for all that runs.
func (d *DHT) Close() error {
	d.announce.Close()
	return d.table.Close()
}

// Size is how many peers the routing table has.
func (d *DHT) Size() int { return d.table.RoutingTable().Size() }

// Bootstrap joins the swarm through these peers, which are also gone back to
// whenever the routing table has run empty. It returns nil when the table has
// at least one peer, else why none of them could be reached before ctx ended;
// with no peers given it returns at once.
func (d *DHT) Bootstrap(ctx context.Context, peers []peer.AddrInfo) error {
	others := make([]peer.AddrInfo, 0, len(peers))
	for _, p := range peers {
		if p.ID != d.host.ID() {
			others = append(others, p)
		}
	}
	d.mu.Lock()
	d.boot = others
	d.mu.Unlock()
	if len(others) == 0 {
		return nil
	}
	begin := time.Now()
	if err := d.connectAny(ctx, others); err != nil {
		return fmt.Errorf("join the swarm: %w", err)
	}
	took := time.Since(begin)
	if err := d.waitForTable(ctx); err != nil {
		return fmt.Errorf("join the swarm: %w", err)
	}
	// Who left the swarm a moment ago is still known to others, and takes as long as a
	// dial that nobody answers, and so does who is silent: such peers are not waited for.
	untilNobodyNew(ctx, d.table.RefreshRoutingTable(), d.Size, max(leastQuiet, quietDials*took))
	return nil
}

// For how long nobody new has come into the table when those that are still waited for are
// taken to be silent: leastQuiet, or as long as some dials take; and how often that is
// looked at.
const (
	leastQuiet = 500 * time.Millisecond
	quietDials = 4
	newEvery   = 20 * time.Millisecond
)

// untilNobodyNew returns when a look for more peers is over, or when their number has not
// changed for so long.
func untilNobodyNew(ctx context.Context, over <-chan error, number func() int, quiet time.Duration) {
	tick := time.NewTicker(newEvery)
	defer tick.Stop()
	for known, since := number(), time.Now(); time.Since(since) < quiet; {
		select {
		case <-over:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if now := number(); now != known {
			known, since = now, time.Now()
		}
	}
}

// connectAny connects to all peers, and returns nil as soon as one answers; the others
// go on until ctx ends. It fails when none answered in time.
func (d *DHT) connectAny(ctx context.Context, peers []peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	answers := make(chan error, len(peers))
	var all sync.WaitGroup
	for _, p := range peers {
		all.Go(func() { answers <- skephost.Connect(ctx, d.host, p) })
	}
	go func() {
		all.Wait()
		cancel()
	}()
	var first error
	for range peers {
		err := <-answers
		if err == nil {
			return nil
		}
		first = cmp.Or(first, err)
	}
	if len(peers) > 1 {
		return fmt.Errorf("none of %d known peers answers; of one of them: %w", len(peers), first)
	}
	return first
}

// waitForTable waits until identify has told the table of a first peer.
func (d *DHT) waitForTable(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for d.Size() == 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("no peer serves the DHT: %w", ctx.Err())
		}
	}
	return nil
}

// Key is the name under which holders of a group are found: the blinded id as
// the digest of a CID.
func Key(id group.ID) cid.Cid {
	blinded := id.Blinded()
	mh, err := multihash.Encode(blinded[:], multihash.SHA2_256)
	if err != nil {
		panic("BUG: dht: " + err.Error()) // code and length are constants
	}
	return cid.NewCidV1(cid.Raw, mh)
}

// Provide announces that this peer holds these groups, now and again until
// StopProviding. It returns at once; the swarm learns of it in the background,
// or when there is a swarm again.
func (d *DHT) Provide(ids ...group.ID) { d.announce.Add(0, ids...) }

// StopProviding ends the announcements of these groups. Those that are out
// last for Config.ProviderAge.
func (d *DHT) StopProviding(ids ...group.ID) { d.announce.Remove(ids...) }

// Announced returns when every group given to Provide was announced at least
// once, or with the error of ctx.
func (d *DHT) Announced(ctx context.Context) error { return d.announce.Wait(ctx) }

// FindHolders returns up to limit peers that say they hold a group, not this
// one; their addresses are Known then. It returns ErrNotFound when there are none, or the
// error of ctx when that ended before the first.
func (d *DHT) FindHolders(ctx context.Context, id group.ID, limit int) (out []group.PeerKey, err error) {
	err = d.EachHolder(ctx, id, limit, func(k group.PeerKey) { out = append(out, k) })
	return out, err
}

// EachHolder calls fn with each of those whom FindHolders returns, when it is found: the
// last ones are waited for until everybody was asked, who may be silent.
func (d *DHT) EachHolder(ctx context.Context, id group.ID, limit int, fn func(group.PeerKey)) error {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	found := 0
	seen := map[peer.ID]bool{d.host.ID(): true}
	for p := range d.table.FindProvidersAsync(ctx, Key(id), 0) {
		if seen[p.ID] || found >= limit {
			continue
		}
		seen[p.ID] = true
		k, err := skephost.Key(p.ID)
		if err != nil {
			continue // no peer of ours has such an identity
		}
		fn(k)
		if found++; found >= limit {
			cancel()
		}
	}
	if found == 0 {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("holders of group %v: %w", id, err)
		}
		return fmt.Errorf("holders of group %v: %w", id, ErrNotFound)
	}
	return nil
}

// FindPeer returns the addresses of a peer, in the order in which they are to be dialled,
// or ErrNotFound.
func (d *DHT) FindPeer(ctx context.Context, k group.PeerKey) (peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	info, err := d.table.FindPeer(ctx, skephost.ID(k))
	// A peer of the table of which no address was known counts as unreachable before
	// anybody has told one.
	addrs := joined(mostDialled, info.Addrs, d.Known(k))
	if len(addrs) > 0 {
		return peer.AddrInfo{ID: skephost.ID(k), Addrs: addrs}, nil
	}
	return peer.AddrInfo{}, fmt.Errorf("peer %v: %w", k, notFound(cmp.Or(err, ErrNotFound)))
}

// Known are the addresses of a peer that it announced, or others told when they were
// asked for anything, in the order in which they are to be dialled. Any of them may be
// made up.
func (d *DHT) Known(k group.PeerKey) []multiaddr.Multiaddr { return d.book.told(skephost.ID(k)) }

// PutRecord puts a signed slot record on the peers nearest to its key. A record
// that is not valid now, or older than the one this peer has in its part of the
// table, is refused.
func (d *DHT) PutRecord(ctx context.Context, word []byte) error {
	r, err := group.ParseSlotRecord(word)
	if err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	if err := d.table.PutValue(ctx, valueKey(r.Key()), word); err != nil {
		return fmt.Errorf("put record: %w", err)
	}
	return nil
}

// GetRecord asks the peers nearest to a slot key and returns the signed record
// with the highest number among the valid ones, or ErrNotFound. When ctx or
// Config.Timeout ends first, the best one seen until then is returned.
func (d *DHT) GetRecord(ctx context.Context, k group.SlotKey) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, d.conf.Timeout)
	defer cancel()
	answers, err := d.table.SearchValue(ctx, valueKey(k), kad.Quorum(0))
	if err != nil {
		return nil, fmt.Errorf("get record: %w", notFound(err))
	}
	var best []byte
	for a := range answers {
		best = a // each is better than the one before
	}
	if best == nil {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("get record: %w", err)
		}
		return nil, fmt.Errorf("get record: %w", ErrNotFound)
	}
	return best, nil
}

func notFound(err error) error {
	if errors.Is(err, routing.ErrNotFound) {
		return ErrNotFound
	}
	return err
}

// Peers are the peers in the routing table.
func (d *DHT) Peers() []peer.ID { return d.table.RoutingTable().ListPeers() }
