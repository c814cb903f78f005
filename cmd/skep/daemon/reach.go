package daemon

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"

	"skep/chunker/secret"
	"skep/cmd/skep/doctor"
	"skep/net/client"
	skephost "skep/net/host"
)

// reachTime is how long a peer may take to answer.
const reachTime = 10 * time.Second

// Reach says hello to peers, as a peer of its own that nobody knows, and returns
// how each answered.
func Reach(ctx context.Context, addrs []string) ([]doctor.Reached, error) {
	infos, err := skephost.ParseAddrs(addrs)
	if err != nil || len(infos) == 0 {
		return nil, err
	}
	listen, err := parseListen([]string{"/ip4/127.0.0.1/tcp/0"})
	if err != nil {
		return nil, err
	}
	h, err := skephost.New(skephost.Config{Key: secret.New().Signer(), Listen: listen})
	if err != nil {
		return nil, err
	}
	defer h.Close()
	c := client.New(h, client.Options{})
	out := make([]doctor.Reached, len(infos))
	var wg sync.WaitGroup
	for i, info := range infos {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, reachTime)
			defer cancel()
			out[i] = reach(ctx, c, h, info)
		})
	}
	wg.Wait()
	return out, nil
}

func reach(ctx context.Context, c *client.Client, h host.Host, info peer.AddrInfo) doctor.Reached {
	r := doctor.Reached{Addr: info.String()}
	if addrs, err := peer.AddrInfoToP2pAddrs(&info); err == nil && len(addrs) > 0 {
		r.Addr = addrs[0].String()
	}
	key, err := skephost.Key(info.ID)
	if err == nil {
		err = skephost.Connect(ctx, h, info)
	}
	if err != nil {
		r.Err = err
		return r
	}
	begin := time.Now()
	hello, err := c.Hello(ctx, key)
	r.At = time.Now()
	r.Took, r.Err = r.At.Sub(begin), err
	if err == nil {
		r.Clock = time.Unix(hello.Time, 0)
	}
	return r
}
