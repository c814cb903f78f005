package run_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/swarm"
	"skep/net/wire"
	"skep/repair/run"
	"skep/test/holders"
)

// liar is a holder that states all it was brought, and answers with err who asks for some of it.
type liar struct {
	*holders.Set
	who  group.PeerKey
	no   func(number uint16) bool
	err  error
	puts int
}

func (l *liar) refusal(op wire.Kind, p group.PeerKey, number uint16) error {
	if p == l.who && l.no(number) {
		return &client.Error{Op: op, Peer: p, Err: l.err}
	}
	return nil
}

func (l *liar) Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	if err := l.refusal(wire.KindProve, p, m.Number); err != nil {
		return err
	}
	return l.Set.Prove(ctx, p, m, slot, nonce, count)
}

func (l *liar) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	if err := l.refusal(wire.KindGet, p, m.Number); err != nil {
		return nil, err
	}
	return l.Set.Get(ctx, p, m, slot, off, n)
}

func (l *liar) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	if p == l.who {
		l.puts++
	}
	return l.Set.Put(ctx, p, manifest, slot, shard)
}

// lie has the holder of slot 1 be a liar, before the first step.
func (w *world) lie(err error, no func(uint16) bool) *liar {
	l := &liar{Set: w.set, who: w.holder(1).Key, no: no, err: err}
	w.swarm = swarm.New(swarm.Config{Holders: l, Finder: w.set, Peers: w.peers})
	w.config.Holders, w.config.Shards = l, w.swarm
	w.loop = run.New(w.config)
	return l
}

// Who takes all that is brought, states all, and says of each shard that it has not got it
// when that is asked for, does not get it brought for ever.
func TestTakesAllAndKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 6, local: true})
		l := w.lie(client.ErrAbsent, func(uint16) bool { return true })
		w.pass(4 * 24 * time.Hour)
		w.whole()
		if p, _ := w.peers.Get(l.who); p.Strikes == 0 || w.holder(1).Key == l.who {
			t.Errorf("%d strikes; it has its slot: %v; it was brought %d shards", p.Strikes, w.holder(1).Key == l.who, l.puts)
		}
	})
}

// An audit of what a holder has lost is not evaded by refusing just that.
func TestRefusesSomeAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 10, local: true})
		l := w.lie(client.ErrBusy, func(n uint16) bool { return n == 3 })
		w.pass(2 * deadAfter)
		w.whole()
		if p, _ := w.peers.Get(l.who); p.Strikes != 1 || w.holder(1).Key == l.who {
			t.Errorf("%d strikes; it has its slot: %v", p.Strikes, w.holder(1).Key == l.who)
		}
	})
}

// What a holder proves counts while it owes other proofs: three of seven end for good when
// one of the four that are left does not give three packs of twelve. The nine others are
// whole again, however often the three cannot be built.
func TestUnbuildablePacksHoldUpNoOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 7, spares: 6, packs: 12})
		w.lie(client.ErrBusy, func(n uint16) bool { return n < 3 })
		w.pass(time.Hour)
		for _, i := range []int{4, 5, 6} {
			w.holder(i).Be(holders.Behaviour{Away: true})
		}
		w.pass(3 * deadAfter)
		if r := w.loop.Report(); r.Healthy != 9 {
			t.Errorf("%+v", r)
		}
	})
}

// Holders that are slow or busy for some hours, night after night, and else prove what they
// have, keep their slots, and what they have counts.
func TestSlowNights(t *testing.T) {
	for name, how := range map[string]holders.Behaviour{"slow": {Delay: 3 * time.Second}, "busy": {Busy: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 20})
				w.pass(12 * time.Hour)
				for range 4 {
					for i := range 3 {
						w.holder(i).Be(how)
					}
					w.pass(6 * time.Hour)
					for i := range 3 {
						w.holder(i).Be(holders.Behaviour{})
					}
					w.pass(18 * time.Hour)
				}
				w.whole()
				if w.account.moved() != 0 || w.puts() != 0 {
					t.Errorf("%d slots were moved, %d shards brought", w.account.moved(), w.puts())
				}
			})
		})
	}
}

// Two of three holders lose their slots while they are away; those who have them then end
// for good. When the two are back, with all that they had, the packs are whole again.
func TestFormerHoldersHealALostPack(t *testing.T) {
	for _, back := range []int{1, 2} {
		t.Run(fmt.Sprint(back), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 1, k: 2, n: 3, spares: 4, packs: 3})
				w.pass(time.Hour)
				away := holders.Behaviour{Away: true}
				former := []*holders.Holder{w.holder(0), w.holder(1)}
				for _, h := range former {
					h.Be(away)
					w.pass(deadAfter + 24*time.Hour)
				}
				w.holder(0).Be(away)
				w.holder(1).Be(away)
				w.pass(deadAfter + 48*time.Hour)
				if r := w.loop.Report(); r.Lost != 3 {
					t.Fatalf("%+v", r)
				}
				for _, h := range former[:back] {
					h.Be(holders.Behaviour{})
					w.greet(h)
				}
				w.pass(2 * deadAfter)
				w.whole()
				if r := w.loop.Report(); r.Healthy != 3 {
					t.Errorf("%+v", r)
				}
			})
		})
	}
}

// A slot goes to no household of another holder that is away for some hours, while a peer
// of another one is free.
func TestHouseholdOfWhoIsAway(t *testing.T) {
	for seed := uint64(1); seed <= 4; seed++ {
		synctest.Test(t, func(t *testing.T) {
			w := newWorld(t, shape{seed: seed, k: 2, n: 4, spares: 4, packs: 2, local: true})
			at := []string{"h0", "h1", "h2", "h3", "h0", "h0", "h0", "e"}
			first, last := w.holder(0), w.set.List()[7]
			hello := func(gone int) {
				for i, h := range w.set.List() {
					if i >= gone && i != 3 || gone == 0 {
						w.peers.Said(h.Key, wire.Hello{Offered: 1 << 30, Free: 1 << 30, Domain: at[i]})
					}
				}
			}
			hello(0)
			w.pass(time.Hour)
			w.holder(3).Be(holders.Behaviour{Away: true})
			for h := range 76 {
				if h == 64 {
					first.Be(holders.Behaviour{Away: true}) // until the morning
				}
				w.pass(time.Hour)
				hello(1)
			}
			if w.holder(3) != last {
				t.Errorf("seed %d: %d slots moved; one of them to the household of another holder", seed, w.account.moved())
			}
		})
	}
}

// What was noted by a clock that was ahead makes nobody alive who was not heard, nor
// counts time in which nobody answered.
func TestClockThatWasAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 2})
		clock := func() time.Time { return time.Now().Add(365 * 24 * time.Hour).Round(0) }
		w.peers = peers.New(peers.Options{Clock: clock})
		for _, h := range w.set.List() {
			w.greet(h)
		}
		w.swarm = swarm.New(swarm.Config{Holders: w.set, Finder: w.set, Peers: w.peers})
		w.config.Peers, w.config.Shards, w.config.Now = w.peers, w.swarm, clock
		w.loop = run.New(w.config)
		w.pass(24 * time.Hour)
		saved, known := w.loop.Save(), w.peers.Encode()

		var err error // the clock is set right, and all begins again
		if w.peers, err = peers.Decode(known, peers.Options{}); err != nil {
			t.Fatal(err)
		}
		w.swarm = swarm.New(swarm.Config{Holders: w.set, Finder: w.set, Peers: w.peers})
		w.config.Peers, w.config.Shards, w.config.Now, w.config.Saved = w.peers, w.swarm, nil, saved
		w.config.Rand = rand.New(rand.NewPCG(1, 1))
		w.loop = run.New(w.config)
		for _, h := range w.set.List() {
			h.Be(holders.Behaviour{Away: true})
		}
		w.loop.Step(t.Context())
		if r := w.loop.Report(); r.Peers[peers.Alive] != 0 {
			t.Errorf("before anybody answered: %v", r.Peers)
		}
		w.pass(2 * deadAfter)
		if r := w.loop.Report(); r.Lost != 0 || r.Peers[peers.Dead] != 0 {
			t.Errorf("without a line: %+v", r)
		}
	})
}
