package host

import (
	"errors"
	"testing"

	"github.com/multiformats/go-multiaddr"

	"skep/chunker/secret"
)

// Two hosts do not share a port; when the first is gone, the second may have it.
func TestPortIsTaken(t *testing.T) {
	for _, any := range []string{"/ip4/127.0.0.1/tcp/0", "/ip4/127.0.0.1/udp/0/quic-v1"} {
		at := func(a multiaddr.Multiaddr) Config {
			return Config{Key: secret.New().Signer(), Listen: []multiaddr.Multiaddr{a}}
		}
		first, err := New(at(multiaddr.StringCast(any)))
		if err != nil {
			t.Fatal(err)
		}
		addr := first.Addrs()[0]
		if second, err := New(at(addr)); !errors.Is(err, ErrTaken) {
			t.Errorf("a second host at %v: %v, %v", addr, second, err)
		}
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		third, err := New(at(addr))
		if err != nil {
			t.Errorf("when the first is gone: %v", err)
			continue
		}
		_ = third.Close()
	}
}
