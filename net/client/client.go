package client

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
	skephost "skep/net/host"
	"skep/net/wire"
)

// Options say how a client behaves. The zero value is right.
type Options struct {
	// Known are addresses of a peer, beside those that the host knows, in the order
	// in which they are to be dialled; nil for none.
	Known func(group.PeerKey) []multiaddr.Multiaddr
	// Find learns the addresses of a peer of which neither the host nor Known have one
	// that works; nil for never. It must end when its context does.
	Find func(context.Context, group.PeerKey) (peer.AddrInfo, error)
	// Dial bounds the time to connect to a peer, once more after Find; 0 stands
	// for 10 s.
	Dial time.Duration
	// Patience is how long a call waits for the peer; the zero value stands for
	// 30 s a stretch and 15 min in all.
	Patience wire.Patience
	// Calls and PeerCalls bound the calls under way, in total and to one peer; 0
	// stands for 128 and 8. A call that waits for a connection counts only for the
	// peer: there are as many dials at once as calls, one to a peer.
	Calls, PeerCalls int
}

func (o Options) withDefaults() Options {
	if o.Dial == 0 {
		o.Dial = 10 * time.Second
	}
	if o.Patience.Stall == 0 {
		o.Patience.Stall = 30 * time.Second
	}
	if o.Patience.Total == 0 {
		o.Patience.Total = 15 * time.Minute
	}
	if o.Calls == 0 {
		o.Calls = 128
	}
	if o.PeerCalls == 0 {
		o.PeerCalls = 8
	}
	return o
}

// Client asks holders. It is safe for concurrent use.
type Client struct {
	host  host.Host
	opts  Options
	lanes lanes
	calls places
	dials dials
}

// New returns a client that asks through a host, which outlives it.
func New(h host.Host, o Options) *Client {
	o = o.withDefaults()
	return &Client{host: h, opts: o, lanes: newLanes(o.PeerCalls), calls: make(places, o.Calls), dials: newDials(o.Calls)}
}

// busyRetries is how often a call is made again after the holder was busy, and
// busyWait how long after the first time; it doubles.
const (
	busyRetries = 4
	busyWait    = 50 * time.Millisecond
)

// reader reads the body of an answer, of this length, after its header.
type reader func(header []byte, body io.Reader, n int) error

// call makes one exchange with a peer and judges its failure. read may be
// called more than once.
func (c *Client) call(ctx context.Context, p group.PeerKey, m wire.Request, body []byte, read reader) error {
	leave, err := c.lanes.enter(ctx, p)
	if err == nil {
		defer leave()
		if body != nil {
			defer c.lanes.push(p)()
		}
		wait := busyWait
		for try := 0; ; try++ {
			err = judge(ctx, c.exchange(ctx, p, m, body, read))
			if try == busyRetries || !errors.Is(err, ErrBusy) || !pause(ctx, wait+rand.N(wait)) {
				break
			}
			wait *= 2
		}
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()) && body == nil && c.lanes.pushing(p) {
		err = fmt.Errorf("%w: %w", ErrWaited, err)
	}
	if err != nil {
		return &Error{Op: m.Kind(), Peer: p, Err: err}
	}
	return nil
}

// pause waits; it returns false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *Client) exchange(ctx context.Context, p group.PeerKey, m wire.Request, body []byte, read reader) error {
	if err := c.reach(ctx, p); err != nil {
		return err
	}
	leave, err := c.calls.take(ctx)
	if err != nil {
		return err
	}
	defer leave()
	s, err := c.open(ctx, p)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Reset() })
	defer stop()
	Sent(ctx)
	if body == nil {
		err = c.ask(ctx, s, m, read)
	} else {
		err = c.push(s, m, body)
	}
	var r *wire.Refusal
	if err != nil && !errors.As(err, &r) {
		_ = s.Reset()
		return err
	}
	_ = s.Close() // the exchange is over; its close cannot fail it
	return err
}

// ask sends a request without a body and reads the answer.
func (c *Client) ask(ctx context.Context, s network.Stream, m wire.Request, read reader) error {
	rw := wire.Patient(s, c.opts.Patience)
	if _, err := rw.Write(wire.AppendRequest(nil, m, 0)); err != nil {
		return err
	}
	_ = s.CloseWrite() // it fails over QUIC if the holder has answered already
	in := readers.Get().(*bufio.Reader)
	in.Reset(watched(ctx, rw))
	defer func() { in.Reset(nil); readers.Put(in) }()
	header, n, err := wire.ReadAnswer(in, m.Kind())
	if err != nil {
		return err
	}
	return read(header, in, n)
}

var readers = sync.Pool{New: func() any { return bufio.NewReaderSize(nil, 64<<10) }}

// push sends a request with a body while it waits for the answer. A holder
// that refuses, or has the shard already, answers before it has read the body:
// the answer decides, and ends the sending.
func (c *Client) push(s network.Stream, m wire.Request, body []byte) error {
	sent := make(chan error, 1)
	go func() { sent <- c.send(s, m, body) }()
	_, _, err := wire.ReadAnswer(s, m.Kind())
	_ = s.SetWriteDeadline(time.Now())
	<-sent
	return err
}

// send writes a request with its body. The wait for the answer begins when it
// is done.
func (c *Client) send(s network.Stream, m wire.Request, body []byte) error {
	rw := wire.Patient(s, c.opts.Patience)
	_, err := rw.Write(wire.AppendRequest(nil, m, len(body)))
	if err == nil {
		_, err = rw.Write(body)
	}
	if err == nil {
		err = s.CloseWrite()
	}
	wait := c.opts.Patience.Stall
	if err != nil {
		wait = min(wait, time.Second) // there may be an answer that says why
	}
	_ = s.SetReadDeadline(time.Now().Add(wait))
	return err
}

// open opens a stream to a peer that there is a connection to.
func (c *Client) open(ctx context.Context, p group.PeerKey) (network.Stream, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Dial)
	defer cancel()
	s, err := c.host.NewStream(network.WithNoDial(ctx, "connected"), skephost.ID(p), wire.Protocol)
	if err != nil {
		return nil, fmt.Errorf("open a stream: %w", err)
	}
	return s, nil
}

// reach makes sure of a connection to a peer.
func (c *Client) reach(ctx context.Context, p group.PeerKey) error {
	id := skephost.ID(p)
	if c.host.Network().Connectedness(id) == network.Connected {
		return nil
	}
	return c.dials.do(ctx, p, func(ctx context.Context) error { return c.connect(ctx, p, id) })
}

// connect makes sure of a connection, by the addresses that the host knows, and Known
// does, then by those that Find does.
func (c *Client) connect(ctx context.Context, p group.PeerKey, id peer.ID) error {
	if c.host.Network().Connectedness(id) == network.Connected {
		return nil
	}
	known := errors.New("no address is known")
	var addrs []multiaddr.Multiaddr
	if c.opts.Known != nil {
		addrs = c.opts.Known(p)
	}
	if len(addrs)+len(c.host.Peerstore().Addrs(id)) > 0 {
		if known = c.dial(ctx, peer.AddrInfo{ID: id, Addrs: addrs}); known == nil {
			return nil
		}
	}
	if c.opts.Find == nil {
		return known
	}
	found, err := c.find(ctx, p)
	if err != nil {
		return errors.Join(known, err)
	}
	return c.dial(ctx, peer.AddrInfo{ID: id, Addrs: found.Addrs})
}

func (c *Client) find(ctx context.Context, p group.PeerKey) (peer.AddrInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Dial)
	defer cancel()
	return c.opts.Find(unsent(ctx), p)
}

func (c *Client) dial(ctx context.Context, info peer.AddrInfo) error {
	ctx, cancel := context.WithTimeout(ctx, c.opts.Dial)
	defer cancel()
	return skephost.Connect(ctx, c.host, info)
}
