package simnet

import (
	"bytes"
	"context"
	"slices"
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

// counted counts the ranges that are asked of holders.
type counted struct {
	*client.Client
	mu   sync.Mutex // guards gets
	gets int
}

func (c *counted) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	c.mu.Lock()
	c.gets++
	c.mu.Unlock()
	return c.Client.Get(ctx, p, m, slot, off, n)
}

// library is one owner's packs, each with five holders of which any three do,
// and a reader of them.
type library struct {
	reader *swarm.Swarm
	asks   *counted
	packs  []storetest.Pack
	refs   []group.PackRef
}

// newLibrary stores packs of 256 KiB with the first five peers, and has the
// sixth read.
func newLibrary(t *testing.T, s *Swarm, packs int) *library {
	l := &library{asks: &counted{Client: s.Peers[5].Client}}
	l.reader = swarm.New(swarm.Config{Holders: l.asks, Finder: s.Peers[5].DHT, Peers: peers.New(peers.Options{})})
	o := storetest.NewOwner(1, 18, 3, 5)
	_, lease := o.Lease(1, until())
	var slots []group.PeerKey
	for _, p := range s.Peers[:5] {
		slots = append(slots, p.Key)
	}
	for slot, holder := range slots {
		if _, err := s.Peers[5].Client.Admit(t.Context(), holder, lease, uint8(slot)); err != nil {
			t.Fatal(err)
		}
	}
	for n := range packs {
		p := o.Pack(t, uint16(n))
		for slot, peer := range s.Peers[:5] {
			if err := peer.Store.PutShard(&p.Manifest, p.Word, uint8(slot), bytes.NewReader(p.Shards[slot])); err != nil {
				t.Fatal(err)
			}
		}
		l.packs = append(l.packs, p)
		l.refs = append(l.refs, group.PackRef{Group: o.ID, Number: uint16(n), Class: 18, Coding: erasure.NewCoding(3, 5),
			Slots: slots, Manifest: p.Word})
	}
	return l
}

// read reads a unit of each shard of a pack, one after the other, and returns
// how long each took.
func (l *library) read(t *testing.T, n int) (took []time.Duration) {
	t.Helper()
	size := erasure.NewCoding(3, 5).ShardSize(18)
	for slot := range 3 {
		begin := time.Now()
		got, err := l.reader.ReadRange(t.Context(), l.refs[n], slot*size, erasure.Unit)
		if err != nil || !bytes.Equal(got, l.packs[n].Shards[slot][:erasure.Unit]) {
			t.Errorf("shard %d of pack %d after %v: %v", slot, n, time.Since(begin), err)
		}
		took = append(took, time.Since(begin))
	}
	return took
}

// One of the holders of a drive is thirty times slower than the others. Who
// reads does not notice: but for the first ones, no read takes much longer than
// among equals.
func TestASlowHolderGoesUnnoticed(t *testing.T) {
	const packs, learning = 24, 2
	run := func(slow map[int]int) (took []time.Duration) {
		Simulate(t, 6, Config{}, Link{BitsPerSecond: 30_000_000, Slow: slow}, func(t *testing.T, s *Swarm) {
			l := newLibrary(t, s, packs)
			for n := range packs {
				if t := l.read(t, n); n >= learning {
					took = append(took, t...)
				}
			}
		})
		slices.Sort(took)
		return took
	}
	equal, one := run(nil), run(map[int]int{1: 1_000_000})
	half, most := equal[len(equal)/2], one[len(one)-1]
	t.Logf("among equals, half of the reads took less than %v; with a slow one, half %v, all %v", half, one[len(one)/2], most)
	if most > 4*half {
		t.Errorf("a read took %v beside a slow holder, %v among equals", most, half)
	}
}

// Our own line is slow, so that all holders seem to be: reading does not make
// it worse by asking more of them than it must.
func TestASlowLineOfOursIsNotFlooded(t *testing.T) {
	const packs = 24
	Simulate(t, 6, Config{}, Link{Slow: map[int]int{5: 1_000_000}}, func(t *testing.T, s *Swarm) {
		l := newLibrary(t, s, packs)
		var wg sync.WaitGroup
		room := make(chan struct{}, 4) // as much at once as one who reads ahead asks for
		for n := range packs {
			wg.Go(func() {
				room <- struct{}{}
				defer func() { <-room }()
				l.read(t, n)
			})
		}
		wg.Wait()
		if most := 3 * packs * 4 / 3; l.asks.gets > most {
			t.Errorf("at most %d are to be asked for", most)
		}
		t.Logf("%d ranges were asked for, of which %d were needed", l.asks.gets, 3*packs)
	})
}
