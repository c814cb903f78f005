package simnet

import (
	"bytes"
	"context"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/test/storetest"
)

// roaming asks through whichever of several lines it is on, and counts the bytes that it
// asks for.
type roaming struct {
	*client.Client
	mu    sync.Mutex // guards asked
	asked int
}

func (r *roaming) count(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked += n
}

func (r *roaming) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	r.count(n)
	return r.Client.Get(ctx, p, m, slot, off, n)
}

func (r *roaming) GetBare(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int, room func(n int) []byte) ([]byte, error) {
	r.count(n)
	return r.Client.GetBare(ctx, p, m, slot, off, n, room)
}

// What is read ahead in order, three spans at once, comes through slow lines, too, also
// when the line was faster before.
func TestReadAheadOverASlowDownlink(t *testing.T) {
	t.Run("narrow", func(t *testing.T) { readAhead(t, 4, 7, 1_000_000) })
	t.Run("wide", func(t *testing.T) { readAhead(t, 10, 20, 1_000_000) })
	t.Run("once fast", func(t *testing.T) { readAhead(t, 4, 7, 100_000_000, 4_000_000, 1_000_000) })
}

// readAhead reads a pack of a coding k of n in order over each of the lines, of so many
// bits a second.
func readAhead(t *testing.T, k, n int, lines ...int) {
	const class, mib = 24, 1 << 20
	slow := map[int]int{}
	for i, bits := range lines {
		slow[n+i] = bits
	}
	Simulate(t, n+len(lines), Config{}, Link{Latency: 150 * time.Millisecond, Slow: slow}, func(t *testing.T, s *Swarm) {
		w := s.Peers[n]
		asks := &roaming{}
		sw := swarm.New(swarm.Config{Holders: asks, Finder: w.DHT, Peers: peers.New(peers.Options{})})
		o := storetest.NewOwner(1, class, k, n)
		_, lease := o.Lease(1, until())
		p := o.Pack(t, 0)
		var slots []group.PeerKey
		for i, to := range s.Peers[:n] {
			slots = append(slots, to.Key)
			if _, err := w.Client.Admit(t.Context(), to.Key, lease, uint8(i)); err != nil {
				t.Fatal(err)
			}
			if err := to.Store.PutShard(&p.Manifest, p.Word, uint8(i), bytes.NewReader(p.Shards[i])); err != nil {
				t.Fatal(err)
			}
		}
		ref := group.PackRef{Group: o.ID, Number: 0, Class: class, Coding: erasure.NewCoding(k, n), Slots: slots, Manifest: p.Word}
		whole := bytes.Join(p.Shards[:k], nil)
		read := func(off, n int) {
			n = min(n, len(whole)-off)
			begin := time.Now()
			want := whole[off : off+n]
			b, _, err := sw.ReadKnown(t.Context(), ref, off, n, nil, func(b []byte) bool { return bytes.Equal(b, want) })
			if err != nil || !bytes.Equal(b, want) {
				t.Errorf("%d+%d after %v: %v", off, n, time.Since(begin), err)
			}
		}
		for i, bits := range lines {
			asks.Client, asks.asked = s.Peers[n+i].Client, 0
			begin := time.Now()
			read(0, mib)
			read(mib, mib)
			var ahead sync.WaitGroup
			for i := range 3 {
				ahead.Go(func() { read((2+4*i)*mib, 4*mib) })
			}
			ahead.Wait()
			if asks.asked > 3*14*mib {
				t.Errorf("at %d bit/s %d bytes were asked for, of which %d were needed", bits, asks.asked, 14*mib)
			}
			t.Logf("at %d bit/s it took %v, %d bytes were asked for", bits, time.Since(begin), asks.asked)
		}
	})
}
