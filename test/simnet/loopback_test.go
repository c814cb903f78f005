package simnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/multiformats/go-multiaddr"

	"skep/cache/hosted"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/dht"
	"skep/net/holder"
	skephost "skep/net/host"
	"skep/test/storetest"
)

func diskStores(t testing.TB, offer int64) func(int) holder.Store {
	dir := t.TempDir()
	return func(i int) holder.Store {
		s, err := hosted.Open(fmt.Sprintf("%s/%d", dir, i), offer)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func until() int64 { return time.Now().Add(365 * 24 * time.Hour).Unix() }

// The shard protocol says the same whatever it goes over.
func TestShardsOverLoopback(t *testing.T) {
	for name, addr := range transports {
		t.Run(name, func(t *testing.T) {
			listen := []multiaddr.Multiaddr{multiaddr.StringCast(addr)}
			s := Loopback(t, 4, Config{Store: diskStores(t, 64<<20), Host: skephost.Config{Listen: listen}})
			testShards(t, s)
			speakOver(t, s.Peers[3], s.Peers[0], map[string]int{"tcp": multiaddr.P_TCP, "quic": multiaddr.P_QUIC_V1}[name])
		})
	}
}

// speakOver fails the test unless all that connects two peers is of a transport.
func speakOver(t *testing.T, a, b *Peer, transport int) {
	t.Helper()
	conns := a.Host.Network().ConnsToPeer(b.Host.ID())
	if len(conns) == 0 {
		t.Error("the peers are not connected")
	}
	for _, c := range conns {
		if _, err := c.RemoteMultiaddr().ValueForProtocol(transport); err != nil {
			t.Errorf("they are connected by %v", c.RemoteMultiaddr())
		}
	}
}

// testShards asks the first three peers of a swarm, from the fourth, all that a holder
// is asked about shards.
func testShards(t *testing.T, s *Swarm) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	asker := s.Peers[3].Client
	o := storetest.NewOwner(1, 20, 2, 3)
	pack := o.Pack(t, 5)
	_, lease := o.Lease(1, until())
	for slot := range uint8(3) {
		p := s.Peers[slot].Key
		hello, err := asker.Hello(ctx, p)
		if err != nil || hello.Offered != 64<<20 || hello.Free == 0 {
			t.Fatalf("hello: %+v, %v", hello, err)
		}
		if err := asker.Put(ctx, p, pack.Word, slot, pack.Shards[slot]); !errors.Is(err, client.ErrRefused) {
			t.Fatalf("put without a lease: %v", err)
		}
		st, err := asker.Admit(ctx, p, lease, slot)
		if err != nil || st.Slot != slot || st.Held.Count() != 0 || st.Lease != 1 {
			t.Fatalf("admit: %+v, %v", st, err)
		}
		if err := asker.Put(ctx, p, pack.Word, slot, pack.Shards[slot]); err != nil {
			t.Fatal(err)
		}
		st, err = asker.Statement(ctx, p, o.ID)
		if err != nil || !st.Held.Has(5) || st.Held.Count() != 1 {
			t.Fatalf("statement: %+v, %v", st, err)
		}
		size := pack.Manifest.ShardSize()
		for _, r := range [][2]int{{0, size}, {70_000, 1000}, {size - 1, 1}, {0, 1}} {
			got, err := asker.Get(ctx, p, &pack.Manifest, slot, r[0], r[1])
			if err != nil || !bytes.Equal(got, pack.Shards[slot][r[0]:r[0]+r[1]]) {
				t.Fatalf("get %v: %v", r, err)
			}
			got, err = asker.GetBare(ctx, p, &pack.Manifest, slot, r[0], r[1], nil)
			if err != nil || !bytes.Equal(got, pack.Shards[slot][r[0]:r[0]+r[1]]) {
				t.Fatalf("bare get %v: %v", r, err)
			}
		}
		if err := asker.Prove(ctx, p, &pack.Manifest, slot, erasure.Nonce{slot}, 8); err != nil {
			t.Fatal(err)
		}
		var wanted group.Bitmap
		wanted.Add(5)
		wanted.Add(6)
		words, err := asker.Manifests(ctx, p, o.ID, wanted)
		if err != nil || len(words) != 1 || !bytes.Equal(words[5], pack.Word) {
			t.Fatalf("manifests: %v, %v", words, err)
		}
		if l, word, err := asker.Lease(ctx, p, o.ID); err != nil || l.Number != 1 || !bytes.Equal(word, lease) {
			t.Fatalf("lease: %v", err)
		}
		absent := o.Pack(t, 6)
		if _, err := asker.Get(ctx, p, &absent.Manifest, slot, 0, 1); !errors.Is(err, client.ErrAbsent) {
			t.Fatalf("absent pack: %v", err)
		}
		for range 100 { // the answer may be there before the request is known to be at its end
			if _, err := asker.GetBare(ctx, p, &absent.Manifest, slot, 0, 1, nil); !errors.Is(err, client.ErrAbsent) {
				t.Fatalf("absent pack, bare: %v", err)
			}
		}
	}
}

func TestDirectoryOverLoopback(t *testing.T) {
	for _, n := range []int{2, 3, 8, 20} {
		t.Run(fmt.Sprintf("%d peers", n), func(t *testing.T) {
			s := Loopback(t, n, Config{})
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			first, last := s.Peers[0], s.Peers[n-1]
			o := storetest.NewOwner(2, 17, 1, 2)
			_, lease := o.Lease(1, until())
			if _, err := last.Client.Admit(ctx, first.Key, lease, 0); err != nil {
				t.Fatal(err)
			}
			pack := o.Pack(t, 0) // nothing is announced before there is a shard
			if err := last.Client.Put(ctx, first.Key, pack.Word, 0, pack.Shards[0]); err != nil {
				t.Fatal(err)
			}
			if err := first.DHT.Announced(ctx); err != nil {
				t.Fatal(err)
			}
			found, err := last.DHT.FindHolders(ctx, o.ID, 10)
			if err != nil || len(found) != 1 || found[0] != first.Key {
				t.Fatalf("holders: %v, %v", found, err)
			}
			if _, err := last.DHT.FindHolders(ctx, group.ID{1}, 10); !errors.Is(err, dht.ErrNotFound) {
				t.Errorf("holders of nothing: %v", err)
			}
			end := until()
			for _, number := range []uint64{1, 3} {
				_, word := storetest.Record(7, number, end, 300)
				if err := last.DHT.PutRecord(ctx, word); err != nil {
					t.Fatal(err)
				}
			}
			_, older := storetest.Record(7, 2, end, 300)
			_ = first.DHT.PutRecord(ctx, older)
			r, newest := storetest.Record(7, 3, end, 300)
			for _, p := range []*Peer{first, last} {
				if got, err := p.DHT.GetRecord(ctx, r.Key()); err != nil || !bytes.Equal(got, newest) {
					t.Errorf("record: %v", err)
				}
			}
			if _, err := first.DHT.GetRecord(ctx, group.SlotKey{1}); !errors.Is(err, dht.ErrNotFound) {
				t.Errorf("record of nothing: %v", err)
			}
			info, err := first.DHT.FindPeer(ctx, last.Key)
			if err != nil || len(info.Addrs) == 0 {
				t.Errorf("peer: %v, %v", info, err)
			}
		})
	}
}
