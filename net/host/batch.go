package host

import (
	"context"
	"net"
	"sync"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/libp2p/go-libp2p/core/sec"
	"github.com/libp2p/go-libp2p/p2p/net/upgrader"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// batchedTLS is libp2p's TLS, but that the records of one write go to the
// kernel together. They have 16 KiB each; a call of the kernel, and a wake of
// the other side, for each took a seventh of all the work of a stream.
type batchedTLS struct{ sec.SecureTransport }

func newBatchedTLS(id protocol.ID, key crypto.PrivKey, muxers []upgrader.StreamMuxer) (batchedTLS, error) {
	t, err := libp2ptls.New(id, key, muxers)
	return batchedTLS{t}, err
}

// SecureInbound implements sec.SecureTransport.
func (t batchedTLS) SecureInbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	b := &batch{Conn: insecure}
	return b.below(t.SecureTransport.SecureInbound(ctx, b, p))
}

// SecureOutbound implements sec.SecureTransport.
func (t batchedTLS) SecureOutbound(ctx context.Context, insecure net.Conn, p peer.ID) (sec.SecureConn, error) {
	b := &batch{Conn: insecure}
	return b.below(t.SecureTransport.SecureOutbound(ctx, b, p))
}

// batchedConn is a connection over a batch. What it writes at once that is more
// than one record goes out at once.
type batchedConn struct {
	sec.SecureConn
	b    *batch
	turn sync.Mutex // held by the one who gathers
}

// Write implements net.Conn.
func (c *batchedConn) Write(p []byte) (int, error) {
	if len(p) <= record {
		return c.SecureConn.Write(p)
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	c.b.begin()
	n, err := c.SecureConn.Write(p)
	if ferr := c.b.end(); err == nil {
		err = ferr
	}
	return n, err
}

const (
	// record is the most plaintext that a record of TLS has.
	record = 16 << 10
	// batchSize is room for four full records, which is what the multiplexer
	// above writes at once.
	batchSize = 4*record + 4<<10
)

var batches = sync.Pool{New: func() any { return new([batchSize]byte) }}

// batch is the connection below TLS. Between begin and end it gathers what is
// written.
type batch struct {
	net.Conn

	mu  sync.Mutex       // guards the next two
	buf *[batchSize]byte // nil: nothing is gathered
	n   int              // bytes in buf
}

// below returns a connection that was made over b.
func (b *batch) below(c sec.SecureConn, err error) (sec.SecureConn, error) {
	if err != nil {
		return nil, err
	}
	return &batchedConn{SecureConn: c, b: b}, nil
}

func (b *batch) begin() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.buf = batches.Get().(*[batchSize]byte)
}

// Write implements net.Conn. An error may be that of bytes gathered before.
func (b *batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.buf != nil && b.n+len(p) > batchSize {
		if err := b.flush(); err != nil {
			return 0, err
		}
	}
	if b.buf == nil || len(p) > batchSize {
		return b.Conn.Write(p)
	}
	b.n += copy(b.buf[b.n:], p)
	return len(p), nil
}

func (b *batch) flush() error {
	if b.n == 0 {
		return nil
	}
	_, err := b.Conn.Write(b.buf[:b.n])
	b.n = 0
	return err
}

// end writes what was gathered.
func (b *batch) end() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.flush()
	batches.Put(b.buf)
	b.buf = nil
	return err
}
