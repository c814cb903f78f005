package daemon

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"fmt"
	"log/slog"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/multiformats/go-multiaddr"

	"skep/cache/hosted"
	"skep/chunker/group"
	"skep/cmd/skep/home"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/repair/health"
)

// network is this device as a peer of the swarm.
type network struct {
	self    group.PeerKey
	host    host.Host
	dht     *dht.DHT
	hosted  *hosted.Store
	holder  *holder.Holder
	client  *client.Client
	peers   *peers.Directory
	survey  *swarm.Survey // nil where peers are known otherwise
	swarm   *swarm.Swarm
	records *swarm.Records

	home  home.Dir
	ways  ways
	first firstJoin
	log   *slog.Logger
}

// peersFile keeps the directory of peers between runs.
const peersFile = "peers"

func newNetwork(h home.Dir, s home.Settings, key ed25519.PrivateKey, log *slog.Logger) (*network, error) {
	listen, err := parseListen(s.Listen)
	if err != nil {
		return nil, err
	}
	return newNetworkOn(h, s, skephost.Config{Key: key, Listen: listen}, log)
}

// newNetworkOn is newNetwork with a host that is configured otherwise than the
// settings say.
func newNetworkOn(h home.Dir, s home.Settings, on skephost.Config, log *slog.Logger) (_ *network, err error) {
	n := &network{home: h, log: log, ways: newWays(), self: group.PeerKey(on.Key.Public().(ed25519.PublicKey))}
	defer func() {
		if err != nil {
			n.close()
		}
	}()
	if _, err = n.ways.add(s.Bootstrap); err != nil {
		return n, err
	}
	if n.hosted, err = hosted.Open(h.Path("hosted"), s.Offer); err != nil {
		return n, err
	}
	for _, left := range n.hosted.LeftOut() {
		log.Error("something held for others cannot be read, and is left as it is", "err", left)
	}
	if n.host, err = skephost.New(on); err != nil {
		return n, err
	}
	if n.dht, err = dht.New(n.host, dht.Config{}); err != nil {
		return n, err
	}
	n.holder, err = holder.New(n.host, n.hosted, holder.Config{Key: on.Key, Directory: n.dht,
		Version: Version, Region: s.Region, Domain: s.Domain, Log: log})
	if err != nil {
		return n, err
	}
	if n.peers, err = loadPeers(h, s); err != nil {
		log.Warn("starting without the peers known before", "err", err)
	}
	n.client = client.New(n.host, client.Options{Known: n.known, Find: n.dht.FindPeer})
	n.survey = &swarm.Survey{Host: n.host, Greeter: n.client, Peers: n.peers, Table: n.dht.Peers,
		Every: greetEvery(s), Now: time.Now, Log: log}
	n.swarm = swarm.New(swarm.Config{Holders: n.client, Finder: n.dht, Peers: n.peers, Silent: n.survey.Silent, Shun: min(scale(s)/12, mostShun), Log: log})
	n.records = &swarm.Records{Keepers: n.client, Directory: n.dht, Peers: n.peers, Silent: n.survey.Silent}
	return n, nil
}

// services are what a peer runs.
func (n *network) services() []service {
	return []service{
		{"holder", n.holder.Run},
		{"joining the swarm", func(ctx context.Context) error {
			if err := n.join(ctx); err != nil {
				n.log.Warn("not connected to the swarm yet; trying on", "err", err)
			}
			return n.stayJoined(ctx)
		}},
		{"peers to join by", n.keepWays},
		{"survey of peers", n.survey.Run},
		{"known peers", n.savePeers},
	}
}

// greetEvery is how often known peers are greeted, by the one time scale.
func greetEvery(s home.Settings) time.Duration {
	return max(time.Second, min(scale(s)/72, 10*time.Minute))
}

// mostShun is the longest that a peer that failed gets no new slots, if the time
// scale does not make it less.
const mostShun = 5 * time.Minute

// scale is the one time scale.
func scale(s home.Settings) time.Duration {
	return cmp.Or(time.Duration(s.DeadAfter), health.DefaultDeadAfter)
}

// parseListen is nil where no address is given.
func parseListen(lines []string) (out []multiaddr.Multiaddr, err error) {
	for _, l := range lines {
		a, err := multiaddr.NewMultiaddr(l)
		if err != nil {
			return nil, fmt.Errorf("listen address %q: %w", l, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// loadPeers reads the peers known from earlier runs; a directory it returns
// either way.
func loadPeers(h home.Dir, s home.Settings) (*peers.Directory, error) {
	opt := peers.Options{DeadAfter: scale(s), Memory: health.Config{DeadAfter: time.Duration(s.DeadAfter)}.LieMemory()}
	b, err := h.ReadFile(peersFile)
	if err != nil || b == nil {
		return peers.New(opt), err
	}
	d, err := peers.Decode(b, opt)
	if err != nil {
		return peers.New(opt), err
	}
	return d, nil
}

// writePeers keeps the directory of peers as it is now.
func (n *network) writePeers() error { return n.home.WriteFile(peersFile, n.peers.Encode()) }

// savePeers keeps the directory of peers, now and then and at the end.
func (n *network) savePeers(ctx context.Context) error {
	tick := time.NewTicker(time.Minute)
	defer tick.Stop()
	var saved uint64
	for {
		if rev := n.peers.Revision(); rev != saved {
			if err := n.writePeers(); err != nil {
				n.log.Warn("the known peers were not saved", "err", err)
			} else {
				saved = rev
			}
		}
		select {
		case <-ctx.Done():
			return n.writePeers()
		case <-tick.C:
		}
	}
}

// addrs are the full addresses under which this peer can be reached.
func (n *network) addrs() []string {
	var out []string
	for _, a := range skephost.Addrs(n.host) {
		out = append(out, a.String())
	}
	return out
}

// close ends what newNetwork began, in reverse.
func (n *network) close() {
	if n.records != nil {
		n.records.Close()
	}
	if n.dht != nil {
		_ = n.dht.Close()
	}
	if n.host != nil {
		_ = n.host.Close()
	}
	if n.hosted != nil {
		_ = n.hosted.Close()
	}
}
