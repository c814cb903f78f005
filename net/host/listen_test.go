package host

import (
	"crypto/ed25519"
	"fmt"
	"net"
	"slices"
	"testing"

	"github.com/multiformats/go-multiaddr"

	"skep/chunker/secret"
)

// TestUsualPort: who names no port has the same one each time, which others know,
// unless somebody else has it.
func TestUsualPort(t *testing.T) {
	equal := func(a, b multiaddr.Multiaddr) bool { return a.Equal(b) }
	seen := map[int]bool{}
	for range 50 {
		key := secret.New().Signer().Public().(ed25519.PublicKey)
		port := portOf(key)
		if port < 1024 || port >= 32768 {
			t.Fatalf("port %d", port)
		}
		l, err := net.Listen("tcp4", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			continue // somebody has it
		}
		if got := usual(key); !slices.EqualFunc(got, everywhere(0), equal) {
			t.Errorf("port %d is taken: %v", port, got)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if got := usual(key); slices.EqualFunc(got, everywhere(port), equal) {
			seen[port] = true
		}
	}
	if len(seen) < 25 {
		t.Errorf("%d ports for 50 keys", len(seen))
	}
}
