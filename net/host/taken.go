package host

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// ErrTaken says that another process listens at an address.
var ErrTaken = errors.New("another process listens there already, perhaps another skep")

// free returns an error that is ErrTaken if another process listens at one of these
// addresses. libp2p would share the port with it, and who calls would reach the one or
// the other.
func free(addrs []multiaddr.Multiaddr) error {
	for _, a := range addrs {
		network, at, err := manet.DialArgs(a)
		if err != nil || strings.HasSuffix(at, ":0") {
			continue // libp2p says what is wrong with it; or any port will do
		}
		if err := tryListen(network, at); errors.Is(err, syscall.EADDRINUSE) {
			return fmt.Errorf("%v: %w", a, ErrTaken)
		}
	}
	return nil
}

// tryListen listens at an address for a moment.
func tryListen(network, at string) error {
	var l io.Closer
	var err error
	if strings.HasPrefix(network, "udp") {
		l, err = net.ListenPacket(network, at)
	} else {
		l, err = net.Listen(network, at)
	}
	if err != nil {
		return err
	}
	return l.Close()
}
