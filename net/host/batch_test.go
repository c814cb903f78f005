package host

import (
	"bytes"
	"crypto/ed25519"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/sec"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
)

// counted counts the writes to a connection.
type counted struct {
	net.Conn
	writes atomic.Int32
}

// Write implements net.Conn.
func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

func testTLS(t *testing.T, seed byte) (batchedTLS, peer.ID) {
	t.Helper()
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	tls, err := newBatchedTLS(libp2ptls.ID, key, nil)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return tls, id
}

// secured are the two ends of a connection over TCP.
func secured(t *testing.T) (out, in sec.SecureConn, raw *counted) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dialler, _ := testTLS(t, 1)
	listener, id := testTLS(t, 2)
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err == nil {
			in, err = listener.SecureInbound(t.Context(), c, "")
		}
		if err != nil {
			t.Error(err)
		}
	})
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	raw = &counted{Conn: c}
	out, err = dialler.SecureOutbound(t.Context(), raw, id)
	wg.Wait()
	if err != nil || t.Failed() {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	return out, in, raw
}

// What is written arrives as it was, whatever its size and whoever writes
// beside; four records of one write cost one call.
func TestBatchedWrites(t *testing.T) {
	out, in, raw := secured(t)
	want := make([]byte, 3<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(want)
	got := make([]byte, len(want))
	read := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(in, got)
		read <- err
	}()
	sizes := []int{1, record - 1, record, record + 1, 4 * record, 4*record + 1, 300_000, 1 << 20}
	for rest := want; len(rest) > 0; {
		n := min(len(rest), sizes[0])
		sizes = append(sizes[1:], sizes[0])
		if m, err := out.Write(rest[:n]); m != n || err != nil {
			t.Fatal(m, err)
		}
		rest = rest[n:]
	}
	if err := <-read; err != nil || !bytes.Equal(got, want) {
		t.Fatalf("something else arrived: %v", err)
	}
	before := raw.writes.Load()
	go func() {
		_, err := io.ReadFull(in, got[:4*record])
		read <- err
	}()
	if _, err := out.Write(want[:4*record]); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil || raw.writes.Load() != before+1 {
		t.Errorf("four records took %d calls, %v", raw.writes.Load()-before, err)
	}
}

func TestBatchedWritesOfSeveral(t *testing.T) {
	out, in, _ := secured(t)
	const writers, each = 8, 60
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				if _, err := out.Write(bytes.Repeat([]byte{byte(i)}, 1000*n)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var count [writers]int
	buf := make([]byte, 64<<10)
	for total, want := 0, writers*1000*each*(each-1)/2; total < want; {
		n, err := in.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range buf[:n] {
			count[b]++
		}
		total += n
	}
	wg.Wait()
	for i, n := range count {
		if n != 1000*each*(each-1)/2 {
			t.Errorf("writer %d: %d bytes arrived", i, n)
		}
	}
}

// A connection that breaks fails writes, and ends with its close.
func TestBatchedWriteFails(t *testing.T) {
	out, in, _ := secured(t)
	_ = in.Close()
	var err error
	for range 100 {
		if _, err = out.Write(make([]byte, 1<<20)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("100 MiB went nowhere, and no error")
	}
}
