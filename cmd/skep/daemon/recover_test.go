package daemon

import (
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/chunker/words"
	"skep/cmd/skep/home"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/peers"
	"skep/net/wire"
	"skep/test/simnet"
)

// clocks are those of peers that answer: how far they are ahead.
type clocks struct {
	now   time.Time
	ahead map[group.PeerKey]time.Duration
	asked int
}

func (c *clocks) Hello(_ context.Context, p group.PeerKey) (wire.Hello, error) {
	c.asked++
	ahead, answers := c.ahead[p]
	if !answers {
		return wire.Hello{}, client.ErrUnreachable
	}
	return wire.Hello{Time: c.now.Add(ahead).Unix()}, nil
}

// A clock that differs from that of a peer is told of. Peers are asked that answered when
// asked last, a few of them.
func TestWrongClock(t *testing.T) {
	now := time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC)
	there := func(n byte) peers.Peer { return peers.Peer{Key: group.PeerKey{n}, HelloAt: now} }
	silent, heardOf := there(9), there(9)
	silent.Misses, heardOf.HelloAt = 1, time.Time{}
	for name, c := range map[string]struct {
		known []peers.Peer
		at    time.Time
		asked int
		says  string
	}{
		"they agree":           {[]peers.Peer{there(1), there(2)}, now, 2, ""},
		"nobody is known":      {nil, now, 0, ""},
		"one does not answer":  {[]peers.Peer{there(7), there(1)}, now, 2, ""},
		"one is ahead":         {[]peers.Peer{there(1), there(9)}, now, 2, "differs from that of a peer by -1h0m0s"},
		"it is the fourth":     {[]peers.Peer{there(1), there(2), there(7), there(9)}, now, 3, ""},
		"it was silent before": {[]peers.Peer{there(1), silent}, now, 1, ""},
		"it never answered":    {[]peers.Peer{there(1), heardOf}, now, 1, ""},
		"it was never set":     {nil, time.Unix(1000, 0), 0, "the clock says"},
	} {
		ask := &clocks{now: now, ahead: map[group.PeerKey]time.Duration{{1}: 0, {2}: time.Minute, {9}: time.Hour}}
		says := wrongClock(t.Context(), c.known, ask, func() time.Time { return c.at })
		if !strings.Contains(says, c.says) || c.says == "" && says != "" || ask.asked != c.asked {
			t.Errorf("%s: %d were asked, it says %q", name, ask.asked, says)
		}
	}
}

// A device that was recovered knows the peers that it met: whoever it joined by may be gone
// when it is used.
func TestRecoveredDeviceKnowsPeers(t *testing.T) {
	simnet.Simulate(t, 4, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s := &swarmOfEvenings{Swarm: swarm, t: t}
		entropy, h := s.leave(map[string][]byte{"dir/file": []byte("content")}), home.Dir(filepath.Join(t.TempDir(), "recovered"))
		keys := keyring.Local{Device: secret.New()}
		release, err := BeginHome(h, 0)
		s.must(err)
		defer release()
		n := s.guest(h, s.settings(0), keys)
		_, err = n.recover(t.Context(), s.settings(0), keys, entropy, nil, func(string) {})
		n.close()
		s.must(err)
		known, err := loadPeers(h, home.Settings{})
		s.must(err)
		for i, p := range swarm.Peers {
			if got, _ := known.Get(p.Key); len(got.Addrs) == 0 {
				t.Errorf("peer %d is not known", i)
			}
		}
		<-time.After(time.Minute) // for what leveldb has left running
	})
}

// Who recovers hears of a wrong clock, also if nothing is found. In a bubble it is the
// year 2000.
func TestRecoveryTellsOfAWrongClock(t *testing.T) {
	simnet.Simulate(t, 2, simnet.Config{DHT: dht.Config{Refresh: -1}}, simnet.Link{}, func(t *testing.T, swarm *simnet.Swarm) {
		s := &swarmOfEvenings{Swarm: swarm, t: t}
		h := home.Dir(filepath.Join(t.TempDir(), "recovered"))
		keys := keyring.Local{Device: secret.New()}
		release, err := BeginHome(h, 0)
		s.must(err)
		defer release()
		n := s.guest(h, s.settings(0), keys)
		defer n.close()
		found, err := n.recover(t.Context(), s.settings(0), keys, words.New(), nil, func(string) {})
		if err == nil || !strings.Contains(found.Clock, "the clock says") {
			t.Errorf("%v; of the clock it says %q", err, found.Clock)
		}
	})
}
