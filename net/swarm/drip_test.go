package swarm

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/wire"
)

// paced are holders of which each answers by so many bytes a second. Those that drip never
// come to an end.
type paced struct {
	*swarmOf
	rate  int
	drips map[group.PeerKey]int
}

func (d *paced) GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, room func(int) []byte) ([]byte, error) {
	if err := d.wait(ctx, p, n); err != nil {
		return nil, err
	}
	return d.swarmOf.GetBare(ctx, p, m, slot, off, n, room)
}

func (d *paced) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	if err := d.wait(ctx, p, n); err != nil {
		return nil, err
	}
	return d.swarmOf.Get(ctx, p, m, slot, off, n)
}

// wait lasts as long as it takes a holder to answer with n bytes.
func (d *paced) wait(ctx context.Context, p group.PeerKey, n int) error {
	rate, drips := d.drips[p]
	if !drips {
		rate = d.rate
	}
	for got := 0; got < n || drips; got += rate / 10 {
		select {
		case <-time.After(100 * time.Millisecond):
			client.Tell(ctx, min(rate/10, max(0, n-got)))
		case <-ctx.Done():
			return &client.Error{Peer: p, Err: ctx.Err()}
		}
	}
	return nil
}

// Holders that answer, but by some bytes at a time, are not taken for a slow line of our
// own: as many as n-k of them cost a reader the time until he knows them, and then little.
func TestHoldersThatDrip(t *testing.T) {
	for _, drip := range []int{1000, 4500} {
		pack := makePack(t, erasure.Class(22), 4, 7, 0)
		synctest.Test(t, func(t *testing.T) {
			f := newSwarmOf(7)
			f.hold(pack)
			pd := peers.New(peers.Options{})
			d := &paced{f, 1_000_000, map[group.PeerKey]int{}}
			for i := range 7 {
				pd.Said(peerKey(i), wire.Hello{Offered: 1 << 30, Free: 1 << 30})
				if i < 3 {
					d.drips[peerKey(i)] = drip
				}
			}
			s := New(Config{Holders: d, Finder: f, Peers: pd})
			for try, most := range []time.Duration{time.Minute, 10 * time.Second} {
				begin := time.Now()
				var all sync.WaitGroup
				for i := range 4 {
					all.Go(func() {
						if _, err := s.ReadRange(t.Context(), pack.PackRef, i<<20, 1<<20); err != nil {
							t.Errorf("%d bytes a second, try %d: %v", drip, try, err)
						}
					})
				}
				all.Wait()
				if took := time.Since(begin); took > most {
					t.Errorf("%d bytes a second, try %d took %v", drip, try, took)
				}
			}
		})
	}
}
