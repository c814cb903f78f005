package simnet

import (
	"testing"

	"github.com/multiformats/go-multiaddr"
)

// Loopback starts a swarm of n peers on the loopback interface, over TCP,
// which is stopped when the test ends.
func Loopback(t testing.TB, n int, c Config) *Swarm {
	t.Helper()
	if c.Host.Listen == nil {
		c.Host.Listen = []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/0")}
	}
	s := &Swarm{join: func(int) (Config, error) { return c, nil }}
	t.Cleanup(s.stop)
	for range n {
		s.Add(t)
	}
	return s
}
