package client

import (
	"context"
	"sync"

	"skep/chunker/group"
)

// dials has one dial to a peer under way at a time, for all who wait for it, and no
// more than so many in all.
type dials struct {
	places places

	mu     sync.Mutex // guards byPeer
	byPeer map[group.PeerKey]*dialling
}

// dialling is a dial that is under way.
type dialling struct {
	done  chan struct{} // closed when it is over, and the fields below are set
	err   error
	ended bool // with the context of who dialled: that says nothing of the peer
}

func newDials(most int) dials {
	return dials{places: make(places, most), byPeer: map[group.PeerKey]*dialling{}}
}

// do dials a peer, or waits for the outcome of who does.
func (d *dials) do(ctx context.Context, p group.PeerKey, dial func(context.Context) error) error {
	for {
		x, mine := d.join(p)
		if mine {
			x.err = d.lead(ctx, dial)
			x.ended = ctx.Err() != nil
			d.end(p, x)
			return x.err
		}
		select {
		case <-x.done:
			if !x.ended {
				return x.err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// join returns the dial to a peer that is under way, or begins one.
func (d *dials) join(p group.PeerKey) (x *dialling, mine bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x, ok := d.byPeer[p]; ok {
		return x, false
	}
	x = &dialling{done: make(chan struct{})}
	d.byPeer[p] = x
	return x, true
}

func (d *dials) lead(ctx context.Context, dial func(context.Context) error) error {
	leave, err := d.places.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	return dial(ctx)
}

func (d *dials) end(p group.PeerKey, x *dialling) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.byPeer, p)
	close(x.done)
}
