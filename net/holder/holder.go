package holder

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"

	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/repeat"
	"skep/net/wire"
)

// Directory is where a holder announces its groups and keeps records findable;
// net/dht is one.
type Directory interface {
	// Provide and StopProviding begin and end the announcement of groups; they
	// do not wait for the network.
	Provide(ids ...group.ID)
	StopProviding(ids ...group.ID)
	// PutRecord and GetRecord put and get signed slot records.
	PutRecord(ctx context.Context, word []byte) error
	GetRecord(ctx context.Context, key group.SlotKey) ([]byte, error)
}

// Config says how a holder behaves. All but Key may be zero.
type Config struct {
	// Key is the key of the host, which signs the statements.
	Key ed25519.PrivateKey
	// Directory is where groups are announced and records put; nil for nowhere.
	Directory Directory
	// Admit, if not nil, decides whether a peer may bring the lease of a new
	// group; its error is the reason that the peer is told.
	Admit func(from group.PeerKey, l group.Lease, slot uint8) error
	// Version, Region and Domain are what the holder says of itself.
	Version, Region, Domain string
	// Now is the clock; nil stands for time.Now.
	Now func() time.Time
	// Log is where the holder tells of damage; nil for nowhere.
	Log *slog.Logger

	// Requests and PeerRequests bound the requests served at once, in total and
	// for each peer; 0 stands for 64 and 16.
	Requests, PeerRequests int
	// Patience is how long the holder waits for the asker; the zero value
	// stands for 20 s a stretch and 15 min in all.
	Patience wire.Patience
	// Pace and PeerPace bound the requests taken in a second, in total and of
	// each peer; 0 stands for 4000 and 2000.
	Pace, PeerPace int
	// Groups and PeerGroups bound the groups held, in total and of those that
	// one peer brought, less those that are over; 0 stands for 8192 and 4096.
	Groups, PeerGroups int
	// Over bounds the groups that are over and kept in mind, so that an older lease
	// brings nothing of them back; 0 stands for 16384. Beyond, those go that end
	// first, of the peer that brought most.
	Over int
	// KeepLease is how far ahead a lease may end; 0 stands for 800 days.
	KeepLease time.Duration
	// Records and PeerRecords bound the slot records kept, in total and of those
	// that one peer brought; 0 stands for 4096 and 256.
	Records, PeerRecords int
	// KeepRecords is the longest that a record is kept after it came; 0 stands
	// for 800 days.
	KeepRecords time.Duration
	// Republish is how often each record is put in the directory; 0 stands for
	// 12 h, a quarter of the age at which the directory forgets it.
	Republish time.Duration
	// Grace is how long after a lease's end its shards are deleted; 0 stands
	// for 72 h. A group whose lease was lost has as long for a new one.
	Grace time.Duration
	// Collect is how often ends are looked for; 0 stands for 1 h.
	Collect time.Duration
	// Scrub is how often every shard is read and compared with its root; 0
	// stands for 7 days.
	Scrub time.Duration
	// ScrubRate bounds the bytes that are read in a second for that, on
	// average; 0 stands for 2 MiB.
	ScrubRate int
}

// Format hides the key from every formatting verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "holder.Config(…)") }

func (c Config) withDefaults() Config {
	c.Requests, c.PeerRequests = orElse(c.Requests, 64), orElse(c.PeerRequests, 16)
	c.Patience.Stall = orElse(c.Patience.Stall, 20*time.Second)
	c.Patience.Total = orElse(c.Patience.Total, 15*time.Minute)
	c.Pace, c.PeerPace = orElse(c.Pace, 4000), orElse(c.PeerPace, 2000)
	c.Groups, c.PeerGroups = orElse(c.Groups, 8192), orElse(c.PeerGroups, 4096)
	c.Over = orElse(c.Over, 16384)
	c.KeepLease = orElse(c.KeepLease, 800*24*time.Hour)
	c.Records, c.PeerRecords = orElse(c.Records, 4096), orElse(c.PeerRecords, 256)
	c.KeepRecords = orElse(c.KeepRecords, 800*24*time.Hour)
	c.Republish = orElse(c.Republish, 12*time.Hour)
	c.Grace = orElse(c.Grace, 72*time.Hour)
	c.Collect = orElse(c.Collect, time.Hour)
	c.Scrub, c.ScrubRate = orElse(c.Scrub, 7*24*time.Hour), orElse(c.ScrubRate, 2<<20)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Directory == nil {
		c.Directory = nowhere{}
	}
	return c
}

func orElse[T comparable](v, zero T) T {
	var none T
	if v == none {
		return zero
	}
	return v
}

// nowhere is the directory of a holder that has none.
type nowhere struct{}

var errNowhere = errors.New("there is no directory")

func (nowhere) Provide(...group.ID)                     {}
func (nowhere) StopProviding(...group.ID)               {}
func (nowhere) PutRecord(context.Context, []byte) error { return nil }
func (nowhere) GetRecord(context.Context, group.SlotKey) ([]byte, error) {
	return nil, errNowhere
}

// Holder serves the shard protocol. It is a service: New builds it, Run serves.
type Holder struct {
	host     host.Host
	self     group.PeerKey
	store    Store
	conf     Config
	gate     *gate
	heavy    *gate // of the exchanges whose answers are made in memory
	pace     *pace
	accounts *accounts
	room     *room
	keep     *keeper
	begin    time.Time

	admitting sync.Mutex   // one new group at a time, so that Config.Groups holds
	ending    sync.RWMutex // no lease comes between seeing that one has ended and deleting

	over map[group.ID]bool // groups that had ended when collect looked last; for it alone

	answers chan struct{} // closed when requests are answered

	mu      sync.Mutex // guards closing
	closing bool
	serving sync.WaitGroup
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Holder) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "holder.Holder(…)") }

// New builds a holder on a host. It serves while Run runs.
func New(h host.Host, s Store, c Config) (*Holder, error) {
	if len(c.Key) != ed25519.PrivateKeySize || skephost.ID(group.PeerKey(c.Key.Public().(ed25519.PublicKey))) != h.ID() {
		return nil, errors.New("holder: the key is not the host's")
	}
	c = c.withDefaults()
	return &Holder{
		host: h, self: group.PeerKey(c.Key.Public().(ed25519.PublicKey)), store: s, conf: c, gate: newGate(c.Requests, c.PeerRequests), heavy: newGate(heavyAll, heavyEach),
		pace: newPace(c.Pace, c.PeerPace), accounts: newAccounts(), room: newRoom(),
		keep: newKeeper(s, c), begin: c.Now(), over: map[group.ID]bool{}, answers: make(chan struct{}),
	}, nil
}

// Answers returns a channel that is closed when requests are answered: Run first looks at
// all that is held.
func (h *Holder) Answers() <-chan struct{} { return h.answers }

// Run serves until ctx ends, then ends what is under way and waits for it. It
// can be called once.
func (h *Holder) Run(ctx context.Context) error {
	h.keep.load()
	for _, id := range h.store.Holdings() {
		if g, ok := h.store.Holding(id); ok {
			h.accounts.add(&g)
		}
	}
	h.collect()
	h.conf.Directory.Provide(h.held()...)
	publish := repeat.New(h.conf.Republish, h.keep.republish)
	h.keep.start(publish)

	var scrubbing sync.WaitGroup
	scrubbing.Go(func() { h.scrubUntil(ctx) })
	h.host.SetStreamHandler(wire.Protocol, func(s network.Stream) { h.accept(ctx, s) })
	close(h.answers)
	h.collectUntil(ctx)

	scrubbing.Wait()
	h.host.RemoveStreamHandler(wire.Protocol)
	h.mu.Lock()
	h.closing = true
	h.mu.Unlock()
	h.serving.Wait()
	h.keep.stop()
	publish.Close()
	return nil
}

// held are the groups of which there is something to announce.
func (h *Holder) held() []group.ID {
	var ids []group.ID
	for _, id := range h.store.Holdings() {
		if g, ok := h.store.Holding(id); ok && !h.ended(&g) && g.Held.Count() > 0 {
			ids = append(ids, id)
		}
	}
	return ids
}

// accept serves one stream, unless the holder is closing.
func (h *Holder) accept(ctx context.Context, s network.Stream) {
	h.mu.Lock()
	if h.closing {
		h.mu.Unlock()
		_ = s.Reset()
		return
	}
	h.serving.Add(1)
	h.mu.Unlock()
	defer h.serving.Done()
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	if err := h.serve(ctx, s); err != nil {
		_ = s.Reset()
		return
	}
	_ = s.Close()
}

func (h *Holder) collectUntil(ctx context.Context) {
	tick := time.NewTicker(h.conf.Collect)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			h.collect()
		}
	}
}

// collect deletes what nobody wants any more: groups some time after the end of
// the last of their leases, when none of them can come back, and records at their
// end. What has ended goes when it is found so twice in a row: a
// clock that is far ahead, as when a machine has just begun, is set right by then.
func (h *Holder) collect() {
	for _, id := range h.store.Holdings() {
		if err := h.collectGroup(id); err != nil {
			h.conf.Log.Warn("group was not deleted", "group", id, "error", err)
		}
	}
	h.keep.collect()
}

func (h *Holder) collectGroup(id group.ID) error {
	h.ending.Lock()
	defer h.ending.Unlock()
	g, ok := h.store.Holding(id)
	if ok && g.Word == nil {
		g = h.recall(g)
	}
	if !ok || !h.ended(&g) {
		delete(h.over, id)
		return nil
	}
	if !h.over[id] {
		h.over[id] = true
		return nil
	}
	h.conf.Directory.StopProviding(id)
	if err := h.store.Drop(id); err != nil {
		return err
	}
	h.accounts.remove(id)
	delete(h.over, id)
	return nil
}

// recall has the lease of a group looked for that could not be read so far.
func (h *Holder) recall(g group.Holding) group.Holding {
	if err := h.store.VerifyLease(g.ID); err != nil {
		h.conf.Log.Warn("a lease was not read", "group", g.ID, "error", err)
	}
	if now, ok := h.store.Holding(g.ID); ok && now.Word != nil {
		h.accounts.add(&now)
		return now
	}
	return g
}

// ended reports whether all leases of a group ended, with their grace.
func (h *Holder) ended(g *group.Holding) bool {
	if g.Word == nil {
		return h.past(h.begin.Unix())
	}
	return h.past(g.Last)
}

func (h *Holder) past(end int64) bool {
	return h.conf.Now().After(time.Unix(end, 0).Add(h.conf.Grace))
}
