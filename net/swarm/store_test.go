package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
)

// store stores another pack than the one that lies there already.
func (b *bench) store(enough int) (group.SlotSet, error) {
	b.pack = makePack(b.T, testClass, int(b.pack.Coding.K), int(b.pack.Coding.N), 1)
	return b.Store(b.Context(), b.pack.group(), b.pack.lease, b.pack.Manifest, b.pack.shards, enough)
}

// has reports whether a peer has its shard of the pack.
func (b *bench) has(i int) bool {
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return bytes.Equal(b.f.peers[peerKey(i)].shards[shardKey{packKey{b.pack.Group, b.pack.Number}, uint8(i)}], b.pack.shards[i])
}

// agrees fails unless exactly these slots are acknowledged, and have it.
func (b *bench) agrees(acked group.SlotSet, want ...int) {
	b.Helper()
	if acked.Count() != len(want) {
		b.Errorf("%d acknowledged, want %d", acked.Count(), len(want))
	}
	for _, i := range want {
		if !acked.Has(i) || !b.has(i) {
			b.Errorf("slot %d: acknowledged %t, there %t", i, acked.Has(i), b.has(i))
		}
	}
}

func TestStore(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		acked, err := b.store(4)
		if err != nil {
			t.Fatal(err)
		}
		b.agrees(acked, 0, 1, 2, 3, 4)
		b.took(0)
		b.reads(0, b.pack.Class.Size())
		if free := b.peer(0).Free; free != 1<<30-int64(len(b.pack.shards[0])) {
			t.Errorf("room of a holder: %d", free)
		}
	})
}

func TestStoreLeavesEmptySlotsOut(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		p := makePack(t, testClass, 3, 5, 1)
		p.Slots[2] = group.PeerKey{}
		b.pack = p
		acked, err := b.Store(b.Context(), p.group(), p.lease, p.Manifest, p.shards, 4)
		if err != nil {
			t.Fatal(err)
		}
		b.agrees(acked, 0, 1, 3, 4)
	})
}

// When enough have it, the others get a while longer.
func TestStoreGrace(t *testing.T) {
	for _, c := range []struct {
		release, took time.Duration
		want          []int
	}{
		{testGrace - 1, testGrace - 1, []int{0, 1, 2, 3, 4}},
		{testGrace + 1, testGrace, []int{0, 1, 2}},
	} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			b.f.set(slow, 3, 4)
			timer := time.AfterFunc(c.release, func() { close(b.f.released) })
			defer timer.Stop()
			acked, err := b.store(3)
			if err != nil {
				t.Fatal(err)
			}
			b.took(c.took)
			b.agrees(acked, c.want...)
			if !b.Alive(peerKey(3)) {
				t.Error("a straggler that was not waited for is shunned")
			}
		})
	}
}

// Stragglers get as long again as the others took.
func TestStoreGraceGrows(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 1, 2)
		b.c.Holders = &stuck{b.f, peerKey(4)}
		time.AfterFunc(20*time.Second, func() { close(b.f.released) })
		acked, err := b.store(4)
		if err != nil {
			t.Fatal(err)
		}
		b.took(40 * time.Second)
		b.agrees(acked, 0, 1, 2, 3)
	})
}

// stuck is holders of whom one never answers.
type stuck struct {
	Holders
	peer group.PeerKey
}

func (s *stuck) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	if p == s.peer {
		<-ctx.Done()
		return ctx.Err()
	}
	return s.Holders.Put(ctx, p, manifest, slot, shard)
}

func TestStoreWithTooFew(t *testing.T) {
	for _, m := range []mood{gone, full, lying, busy} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			b.f.set(m, 1, 3)
			acked, err := b.store(4)
			if !errors.Is(err, ErrTooFew) || !strings.Contains(err.Error(), "3 of 5, 4 would do") {
				t.Errorf("%v: %v", m, err)
			}
			b.agrees(acked, 0, 2, 4)
			b.took(0)
			if m == full && (b.peer(1).Free != 0 || b.peer(0).Free == 0) {
				t.Error("full is not who refused")
			}
			if m == lying && b.peer(1).Strikes == 0 {
				t.Error("a liar was not struck")
			}
		})
	}
}

// Want of room says more than who else failed, in whichever order they answer.
func TestStoreInAFullSwarm(t *testing.T) {
	for range 20 {
		inBubble(t, 3, 6, 0, func(b *bench) {
			b.f.set(full, 1)
			b.f.set(gone, 2, 4)
			b.f.set(busy, 5)
			if _, err := b.store(5); !errors.Is(err, ErrTooFew) || !errors.Is(err, client.ErrFull) {
				t.Error(err)
			}
		})
	}
}

func TestStoreEndsInTime(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2)
		if _, err := b.store(4); !errors.Is(err, ErrTooFew) || errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b.took(time.Minute + usualTime(b.pack.manifest.ShardSize()))
	})
}

// Who keeps others waiting is given up as soon as if he were alone with those that are
// out with him, but where the shards of those before took long, too.
func TestStoreTime(t *testing.T) {
	const size = 4 << 20 // a minute and 16 s alone, 102.4 s through a slow line
	s := New(Config{})
	for _, c := range []struct {
		took      time.Duration
		some, all int
		want      time.Duration
	}{
		{time.Second, 1, 7, 6 * 102400 * time.Millisecond},
		{time.Second, 6, 7, 102400 * time.Millisecond},
		{time.Second, 2, 55, 8 * 102400 * time.Millisecond},
		{40 * time.Second, 6, 7, 40*time.Second*4*7/6 - 40*time.Second},
		{4 * time.Minute, 1, 7, 108 * time.Minute},
		{4 * time.Minute, 7, 7, 12 * time.Minute},
	} {
		if got := s.storeTime(size, c.took, c.some, c.all); got != c.want {
			t.Errorf("%d of %d took %v: %v, want %v", c.some, c.all, c.took, got, c.want)
		}
	}
}

// Through a line that may be slow no more go at once than all get something of; those that
// take their time keep the others waiting some seconds each.
func TestStoreBesideThoseWhoTakeTheirTime(t *testing.T) {
	inBubble(t, 3, 14, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13)
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		time.AfterFunc(time.Second/2, func() {
			b.f.with(func() {
				if b.f.waits != firstPushes {
					t.Errorf("%d go at once", b.f.waits)
				}
			})
		})
		p := b.pack
		if _, err := b.Store(ctx, p.group(), p.lease, p.Manifest, p.shards, 4); !errors.Is(err, ErrTooFew) || b.push.out != 0 {
			t.Errorf("%v; %d are out", err, b.push.out)
		}
	})
	inBubble(t, 3, 14, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9)
		acked, err := b.store(4)
		if err != nil {
			t.Fatal(err)
		}
		b.agrees(acked, 10, 11, 12, 13)
		if took := time.Since(b.begin); took > 30*time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// The faster they go, the more go at once.
func TestPushes(t *testing.T) {
	p := newPushes(firstPushes)
	leave := func(n int, took time.Duration, there bool) {
		for range n {
			p.take(true)
			p.leave(1<<20, took, there)
		}
	}
	for _, c := range []struct {
		n     int
		took  time.Duration
		there bool
		want  int
	}{
		{4, time.Second, true, firstPushes + 4},
		{4, time.Second, false, firstPushes + 4},
		{4, time.Minute, true, firstPushes + 4},
		{2, 2 * time.Minute, true, firstPushes + 2},
		{100, 2 * time.Minute, false, leastPushes},
		{1000, time.Second, true, mostPushes},
	} {
		if leave(c.n, c.took, c.there); p.room != c.want || p.out != 0 {
			t.Errorf("%d that took %v: room for %d, want %d; %d are out", c.n, c.took, p.room, c.want, p.out)
		}
	}
}

// A holder that does not know the group takes the lease, then the shard.
func TestStoreBringsTheLease(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.peers[peerKey(1)].strict = true
		b.f.peers[peerKey(2)].strict = true
		b.f.peers[peerKey(2)].leases[b.pack.Group] = true
		acked, err := b.store(5)
		if err != nil {
			t.Fatal(err)
		}
		b.agrees(acked, 0, 1, 2, 3, 4)
		if n := b.f.allCalls(wire.KindAdmit); n != 1 {
			t.Errorf("%d leases were brought, want 1", n)
		}
	})
}

func TestStoreWithoutLease(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.peers[peerKey(1)].strict = true
		p := b.pack
		acked, err := b.Store(b.Context(), p.group(), nil, p.Manifest, p.shards, 5)
		if !errors.Is(err, ErrTooFew) || !errors.Is(err, client.ErrRefused) || b.f.allCalls(wire.KindAdmit) != 0 {
			t.Errorf("%v, with %d leases brought", err, b.f.allCalls(wire.KindAdmit))
		}
		b.agrees(acked, 0, 2, 3, 4)
	})
}

func TestStoreShard(t *testing.T) {
	inBubble(t, 3, 5, 1, func(b *bench) {
		b.f.peers[peerKey(5)].strict = true
		p := b.pack
		if err := b.StoreShard(b.Context(), peerKey(5), p.lease, p.Manifest, 2, p.shards[2]); err != nil {
			t.Fatal(err)
		}
		got, err := b.f.Get(b.Context(), peerKey(5), &p.manifest, 2, 0, len(p.shards[2]))
		if err != nil || !bytes.Equal(got, p.shards[2]) {
			t.Error("the shard is not there")
		}
		b.f.set(full, 5)
		if err := b.StoreShard(b.Context(), peerKey(5), p.lease, p.Manifest, 2, p.shards[2]); !errors.Is(err, client.ErrFull) {
			t.Errorf("full: %v", err)
		}
		b.f.set(slow, 5)
		if err := b.StoreShard(b.Context(), peerKey(5), p.lease, p.Manifest, 2, p.shards[2]); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("never answered: %v", err)
		}
	})
}

func TestLease(t *testing.T) {
	for away := range 4 {
		inBubble(t, 3, 5, 0, func(b *bench) {
			for i := range away {
				b.f.set(gone, i)
			}
			took, err := b.Lease(b.Context(), b.pack.group(), b.pack.lease)
			if took.Count() != 5-away || errors.Is(err, ErrTooFew) != (away > 2) {
				t.Errorf("%d away: %d took it, %v", away, took.Count(), err)
			}
			if err != nil && !strings.Contains(err.Error(), "2 of 5") {
				t.Errorf("%v does not say how many", err)
			}
			for i := range 5 {
				if b.f.peers[peerKey(i)].leases[b.pack.Group] != took.Has(i) {
					t.Errorf("slot %d: %t", i, took.Has(i))
				}
			}
		})
	}
}

// Who does not answer holds nobody up for long when enough have a lease.
func TestLeaseGrace(t *testing.T) {
	for away, want := range []time.Duration{0, testGrace, testGrace, time.Minute} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			for i := range away {
				b.f.set(slow, i)
			}
			took, err := b.Lease(b.Context(), b.pack.group(), b.pack.lease)
			if took.Count() != 5-away || errors.Is(err, ErrTooFew) != (away > 2) {
				t.Errorf("%d do not answer: %d took it, %v", away, took.Count(), err)
			}
			b.took(want)
			if !b.Alive(peerKey(0)) {
				t.Error("a straggler that was not waited for is shunned")
			}
		})
	}
}

func TestLeaseOfAGroupWithoutHolders(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		g := b.pack.group()
		g.Slots = make([]group.PeerKey, 5)
		if _, err := b.Lease(b.Context(), g, b.pack.lease); !errors.Is(err, ErrTooFew) {
			t.Error(err)
		}
	})
}

// What was stored with n−k holders away is read with any k of those that have
// it.
func TestStoredIsReadWithAnyK(t *testing.T) {
	const k, n = 3, 6
	for set := range 1 << n {
		var away []int
		for i := range n {
			if set>>i&1 != 0 {
				away = append(away, i)
			}
		}
		if len(away) != n-k {
			continue
		}
		t.Run(fmt.Sprint(away), func(t *testing.T) {
			inBubble(t, k, n, 0, func(b *bench) {
				if _, err := b.store(n); err != nil {
					t.Fatal(err)
				}
				b.f.set(gone, away...)
				b.reads(0, b.pack.Class.Size())
			})
		})
	}
}
