package simnet

import (
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/multiformats/go-multiaddr"

	"skep/chunker/group"
	"skep/net/holder"
	"skep/test/storetest"
)

// The benchmarks compare puts and gets of shards of 4 MiB with a bare stream
// between the same hosts. Both sides of the exchange share the machine.

const benchShard = 4 << 20

func benchSwarm(b *testing.B, addr string, store func(int) holder.Store) (*Swarm, *storetest.Owner) {
	c := Config{Store: store}
	c.Host.Listen = []multiaddr.Multiaddr{multiaddr.StringCast(addr)}
	s := Loopback(b, 2, c)
	o := storetest.NewOwner(1, 24, 4, 5)
	_, lease := o.Lease(1, until(), func(l *group.Lease) { l.Bytes = 1 << 40 })
	if _, err := s.Peers[1].Client.Admit(b.Context(), s.Peers[0].Key, lease, 0); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(benchShard)
	b.ResetTimer()
	return s, o
}

var transports = map[string]string{"tcp": "/ip4/127.0.0.1/tcp/0", "quic": "/ip4/127.0.0.1/udp/0/quic-v1"}

func BenchmarkBareStream(b *testing.B) {
	for name, addr := range transports {
		b.Run(name, func(b *testing.B) {
			s, _ := benchSwarm(b, addr, nil)
			done := make(chan error, 1)
			s.Peers[0].Host.SetStreamHandler("/bare", func(st network.Stream) {
				buf := make([]byte, 128<<10)
				_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, buf)
				_ = st.Close()
				done <- err
			})
			data := storetest.Bytes(1, benchShard)
			st, err := s.Peers[1].Host.NewStream(b.Context(), s.Peers[0].Host.ID(), "/bare")
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := st.Write(data); err != nil {
					b.Fatal(err)
				}
			}
			_ = st.CloseWrite()
			if err := <-done; err != nil {
				b.Fatal(err)
			}
		})
	}
}

// benchExchange times exchanges over each transport, with a holder in memory and on a
// disk, of one and of four askers at once. begin returns how the i-th is made.
func benchExchange(b *testing.B, begin func(*testing.B, *Swarm, *storetest.Owner) func(i int) error) {
	for name, addr := range transports {
		for _, kind := range []string{"memory", "disk"} {
			for _, sides := range []int{1, 4} {
				b.Run(name+"/"+kind+"/"+string(rune('0'+sides)), func(b *testing.B) {
					var store func(int) holder.Store
					if kind == "disk" {
						store = diskStores(b, 20<<30)
					}
					s, o := benchSwarm(b, addr, store)
					exchange := begin(b, s, o)
					b.ResetTimer()
					var n atomic.Int64
					var wg sync.WaitGroup
					for range sides {
						wg.Go(func() {
							for i := int(n.Add(1)) - 1; i < b.N; i = int(n.Add(1)) - 1 {
								if err := exchange(i); err != nil {
									b.Error(err)
									return
								}
							}
						})
					}
					wg.Wait()
				})
			}
		}
	}
}

func BenchmarkPut(b *testing.B) {
	benchExchange(b, func(b *testing.B, s *Swarm, o *storetest.Owner) func(int) error {
		words := manifests(b, o)
		shard := o.Pack(b, 0).Shards[0]
		return func(i int) error {
			err := s.Peers[1].Client.Put(b.Context(), s.Peers[0].Key, words[i%len(words)], 0, shard)
			if err == nil && (i+1)%len(words) == 0 {
				_ = storetest.Clear(s.Peers[0].Store, o.ID)
			}
			return err
		}
	})
}

// manifests are those of packs with one content and all numbers.
func manifests(b *testing.B, o *storetest.Owner) [][]byte {
	m := o.Pack(b, 0).Manifest
	words := make([][]byte, group.MaxPacks)
	for i := range words {
		m.Number = uint16(i)
		words[i] = m.Sign(o.Key)
	}
	return words
}

// A new stream for each 4 MiB, and a byte back: what an exchange costs beside
// what it does.
func BenchmarkBareExchange(b *testing.B) {
	for name, addr := range transports {
		b.Run(name, func(b *testing.B) {
			s, _ := benchSwarm(b, addr, nil)
			s.Peers[0].Host.SetStreamHandler("/bare", func(st network.Stream) {
				buf := make([]byte, 128<<10)
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{st}, buf)
				_, _ = st.Write(buf[:1])
				_ = st.Close()
			})
			data := storetest.Bytes(1, benchShard)
			for b.Loop() {
				st, err := s.Peers[1].Host.NewStream(b.Context(), s.Peers[0].Host.ID(), "/bare")
				if err != nil {
					b.Fatal(err)
				}
				if _, err := st.Write(data); err != nil {
					b.Fatal(err)
				}
				_ = st.CloseWrite()
				if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
					b.Fatal(err)
				}
				_ = st.Close()
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	benchExchange(b, func(b *testing.B, s *Swarm, o *storetest.Owner) func(int) error {
		p := o.Pack(b, 0)
		if err := s.Peers[1].Client.Put(b.Context(), s.Peers[0].Key, p.Word, 0, p.Shards[0]); err != nil {
			b.Fatal(err)
		}
		return func(int) error {
			_, err := s.Peers[1].Client.Get(b.Context(), s.Peers[0].Key, &p.Manifest, 0, 0, benchShard)
			return err
		}
	})
}
