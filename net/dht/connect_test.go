package dht

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// dialer is a host of which only Connect is used.
type dialer struct {
	host.Host
	dial func(ctx context.Context, id peer.ID) error
}

func (d dialer) Connect(ctx context.Context, p peer.AddrInfo) error { return d.dial(ctx, p.ID) }

// One who answers is enough: nobody waits for those who are silent.
func TestConnectAny(t *testing.T) {
	refused := errors.New("refused")
	silent := func(ctx context.Context) error {
		<-ctx.Done()
		return ctx.Err()
	}
	for name, c := range map[string]struct {
		dial func(ctx context.Context, id peer.ID) error
		took time.Duration
		says string // empty: it succeeds
	}{
		"one answers, one is silent": {func(ctx context.Context, id peer.ID) error {
			if id == "a" {
				return silent(ctx)
			}
			return nil
		}, 0, ""},
		"all refuse":     {func(context.Context, peer.ID) error { return refused }, 0, "none of 2 known peers answers; of one of them: refused"},
		"all are silent": {func(ctx context.Context, _ peer.ID) error { return silent(ctx) }, time.Minute, "none of 2"},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			d := &DHT{host: dialer{dial: c.dial}, conf: Config{Timeout: time.Minute}}
			begin := time.Now()
			err := d.connectAny(ctx, []peer.AddrInfo{{ID: "a"}, {ID: "b"}})
			if took := time.Since(begin); took != c.took {
				t.Errorf("%s: took %v", name, took)
			}
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("%s: %v", name, err)
			}
			cancel() // those that are silent end
		})
	}
}
