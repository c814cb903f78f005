package simnet

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/test/storetest"
)

// What is read ahead in order, three spans at once, comes through a slow line, too.
func TestReadAheadOverASlowDownlink(t *testing.T) {
	const k, n, class, mib = 4, 7, 24, 1 << 20
	Simulate(t, n+1, Config{}, Link{Latency: 150 * time.Millisecond, Slow: map[int]int{n: 2_000_000}}, func(t *testing.T, s *Swarm) {
		w := s.Peers[n]
		sw := swarm.New(swarm.Config{Holders: w.Client, Finder: w.DHT, Peers: peers.New(peers.Options{})})
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
			begin := time.Now()
			want := whole[off : off+n]
			b, _, err := sw.ReadKnown(t.Context(), ref, off, n, nil, func(b []byte) bool { return bytes.Equal(b, want) })
			if err != nil || !bytes.Equal(b, want) {
				t.Errorf("%d+%d after %v: %v", off, n, time.Since(begin), err)
			}
		}
		read(0, mib)
		read(mib, mib)
		var ahead sync.WaitGroup
		for i := range 3 {
			ahead.Go(func() { read((2+4*i)*mib, 4*mib) })
		}
		ahead.Wait()
	})
}
