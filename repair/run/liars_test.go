package run_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
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
	"skep/test/storetest"
)

// liar is a holder some of whose answers are not those of an honest one. nil is honest.
type liar struct {
	*holders.Set
	who   group.PeerKey
	prove func(ctx context.Context, number uint16) error
	get   func(number uint16) error
	state func(*group.Statement)
	puts  int
}

func (l *liar) refusal(op wire.Kind, err error) error {
	return &client.Error{Op: op, Peer: l.who, Err: err}
}

func (l *liar) Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	if p == l.who && l.prove != nil {
		if err := l.prove(ctx, m.Number); err != nil {
			return l.refusal(wire.KindProve, err)
		}
	}
	return l.Set.Prove(ctx, p, m, slot, nonce, count)
}

func (l *liar) Get(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, off, n int) ([]byte, error) {
	if p == l.who && l.get != nil {
		if err := l.get(m.Number); err != nil {
			return nil, l.refusal(wire.KindGet, err)
		}
	}
	return l.Set.Get(ctx, p, m, slot, off, n)
}

func (l *liar) Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error) {
	st, err := l.Set.Statement(ctx, p, id)
	if p == l.who && err == nil && l.state != nil {
		l.state(&st)
	}
	return st, err
}

func (l *liar) Put(ctx context.Context, p group.PeerKey, manifest []byte, slot uint8, shard []byte) error {
	if p == l.who {
		l.puts++
	}
	return l.Set.Put(ctx, p, manifest, slot, shard)
}

// lie has the holder of slot 1 be l, before the first step.
func (w *world) lie(l *liar) *liar {
	l.Set, l.who = w.set, w.holder(1).Key
	w.swarm = swarm.New(swarm.Config{Holders: l, Finder: w.set, Peers: w.peers})
	w.config.Holders, w.config.Shards = l, w.swarm
	w.loop = run.New(w.config)
	return l
}

// refuses answers with err to who asks for some packs.
func refuses(err error, no func(number uint16) bool) *liar {
	refuse := func(number uint16) error {
		if no(number) {
			return err
		}
		return nil
	}
	return &liar{prove: func(_ context.Context, n uint16) error { return refuse(n) }, get: refuse}
}

// caught fails unless the liar was caught, and has no slot any more.
func (w *world) caught(l *liar) {
	w.t.Helper()
	w.whole()
	if p, _ := w.peers.Get(l.who); p.Strikes == 0 || w.holder(1).Key == l.who {
		w.t.Errorf("%d strikes; it has its slot: %v; it was brought %d shards", p.Strikes, w.holder(1).Key == l.who, l.puts)
	}
}

// Who takes all that is brought, states all, and says of each shard that it has not got it
// when that is asked for, does not get it brought for ever. Nor does who states nothing, and
// takes what is brought again and again, whatever it answers to audits.
func TestTakesAllAndKeepsNothing(t *testing.T) {
	for name, l := range map[string]*liar{
		"states all":           refuses(client.ErrAbsent, func(uint16) bool { return true }),
		"states nothing":       {state: func(st *group.Statement) { st.Held = group.Bitmap{} }},
		"states nothing, busy": {state: func(st *group.Statement) { st.Held = group.Bitmap{} }, prove: func(context.Context, uint16) error { return client.ErrBusy }},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 6, local: true})
				w.lie(l)
				w.pass(4 * 24 * time.Hour)
				w.caught(l)
			})
		})
	}
}

// An audit of what a holder has lost is evaded neither by refusing just that, nor by silence
// to whoever asks until that is forgotten.
func TestEvadesSomeAudits(t *testing.T) {
	lost := func(n uint16) bool { return n == 3 }
	mute := &liar{prove: func(ctx context.Context, n uint16) error {
		if !lost(n) {
			return nil
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	for name, l := range map[string]*liar{"refuses": refuses(client.ErrBusy, lost), "silent": mute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 10, local: true})
				w.lie(l)
				if l == mute {
					w.config.Holders = muteAfter{l, lost, new(atomic.Pointer[time.Time])}
					w.loop = run.New(w.config)
				}
				w.pass(2 * deadAfter)
				w.caught(l)
				if p, _ := w.peers.Get(l.who); p.Strikes != 1 {
					t.Errorf("%d strikes", p.Strikes)
				}
			})
		})
	}
}

// muteAfter has a liar answer no plain question after an audit of what it lost, for longer
// than silence is held against who is heard again.
type muteAfter struct {
	*liar
	lost  func(number uint16) bool
	until *atomic.Pointer[time.Time]
}

func (m muteAfter) Prove(ctx context.Context, p group.PeerKey, man *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	if p == m.who && m.lost(man.Number) {
		until := time.Now().Add(6 * time.Minute)
		m.until.Store(&until)
	}
	return m.liar.Prove(ctx, p, man, slot, nonce, count)
}

func (m muteAfter) Statement(ctx context.Context, p group.PeerKey, id group.ID) (group.Statement, error) {
	if until := m.until.Load(); until != nil && p == m.who && time.Now().Before(*until) {
		return group.Statement{}, &client.Error{Op: wire.KindStatement, Peer: p, Err: client.ErrUnreachable}
	}
	return m.liar.Statement(ctx, p, id)
}

// What former holders have is brought to those who have their slots, also where these have
// other packs, so that no slot is given back: two were away for days, with what two others
// had missed, and new packs came meanwhile.
func TestFormerHoldersHaveOtherPacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 7, spares: 6, packs: 6})
		for i := range 2 { // they missed the last three packs
			h := w.holder(i)
			h.Store = storetest.NewMemory(1 << 30)
			for n := range uint16(3) {
				h.Fill(w.account.lease, w.account.packs[n], uint8(i))
			}
			w.account.with(func(a *account) {
				for n := uint16(3); n < 6; n++ {
					a.held[i].Remove(n)
				}
			})
			h.Be(holders.Behaviour{Away: true})
		}
		w.pass(2 * time.Hour)
		away := []*holders.Holder{w.holder(5), w.holder(6)}
		for _, h := range away {
			h.Be(holders.Behaviour{Away: true})
		}
		w.pass(time.Hour)
		for i := range 2 {
			w.holder(i).Be(holders.Behaviour{})
			w.greet(w.holder(i))
		}
		w.pass(deadAfter + 24*time.Hour)
		if r := w.loop.Report(); r.Lost != 3 || w.holder(5) == away[0] || w.holder(6) == away[1] {
			t.Fatalf("it is not so that three packs are out of reach, and two slots with others: %+v", r)
		}
		for n := uint16(6); n < 9; n++ {
			w.append(n, false)
		}
		w.pass(2 * time.Hour)
		for _, h := range away {
			h.Be(holders.Behaviour{})
			w.greet(h)
		}
		w.pass(deadAfter)
		if r := w.loop.Report(); r.Healthy != 9 {
			t.Errorf("%+v", r)
		}
	})
}

// What is lost is not read for again and again because former holders are there, who may
// have it: twenty days take 567 shards, not 1,680.
func TestLostBesideFormerHolders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 7, spares: 6, packs: 12})
		w.lie(refuses(client.ErrBusy, func(n uint16) bool { return n < 6 }))
		w.pass(time.Hour)
		for _, i := range []int{4, 5, 6} {
			w.holder(i).Be(holders.Behaviour{Away: true})
		}
		w.pass(14 * 24 * time.Hour)
		before := w.gets()
		w.pass(20 * 24 * time.Hour)
		if r, gets := w.loop.Report(), w.gets()-before; r.Lost != 6 || gets == 0 || gets > 700 {
			t.Errorf("%d shards were asked for; %+v", gets, r)
		}
	})
}

// Packs that cannot be built keep no others of their group from being brought: three of
// seven holders end for good when one of the four that are left does not give three packs
// of twelve, whether it proves them or not.
func TestUnbuildablePacksHoldUpNoOthers(t *testing.T) {
	first := func(n uint16) bool { return n < 3 }
	for name, c := range map[string]struct {
		l    *liar
		lost int
	}{
		"proved":  {&liar{get: refuses(client.ErrBusy, first).get}, 0},
		"refused": {refuses(client.ErrBusy, first), 3},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 1, k: 4, n: 7, spares: 6, packs: 12})
				w.lie(c.l)
				w.pass(time.Hour)
				for _, i := range []int{4, 5, 6} {
					w.holder(i).Be(holders.Behaviour{Away: true})
				}
				w.pass(3 * deadAfter)
				if r := w.loop.Report(); r.Healthy != 9 || r.Lost != c.lost {
					t.Errorf("%+v", r)
				}
			})
		})
	}
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
// for good. When the two are back, with all that they had and without room for more, the
// packs are whole again.
func TestFormerHoldersHealALostPack(t *testing.T) {
	for _, back := range []int{1, 2} {
		t.Run(fmt.Sprint(back), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w, former := formers(t, 2, 3)
				for _, h := range former[:back] {
					h.Be(holders.Behaviour{})
					w.peers.Said(h.Key, wire.Hello{Offered: 1 << 30})
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

// formers is a swarm of n-1 of n in which some holders lost their slots while they were
// away, and those who had them then ended for good.
func formers(t *testing.T, gone, n int) (w *world, former []*holders.Holder) {
	w = newWorld(t, shape{seed: 1, k: n - 1, n: n, spares: 2 * gone, packs: 3})
	w.pass(time.Hour)
	away := holders.Behaviour{Away: true}
	for i := range gone {
		former = append(former, w.holder(i))
		w.holder(i).Be(away)
		w.pass(deadAfter + 24*time.Hour)
	}
	for i := range gone {
		w.holder(i).Be(away)
	}
	w.pass(deadAfter + 48*time.Hour)
	if r := w.loop.Report(); r.Lost != 3 {
		t.Fatalf("%+v", r)
	}
	return w, former
}

// Former holders that come back with nothing are asked, and nothing is fetched for them.
func TestFormerHoldersWithNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, former := formers(t, 2, 3)
		for _, h := range former {
			h.Store = storetest.NewMemory(1 << 40)
			h.Be(holders.Behaviour{})
			w.greet(h)
		}
		before := w.gets()
		w.pass(2 * deadAfter)
		if n := w.gets() - before; n != 0 {
			t.Errorf("%d shards were fetched", n)
		}
	})
}

// Slots are moved with the packs that can be built. When the holders come back that had
// all of them, they get them again, and with these the rest is built.
func TestFormerHoldersHealWhatWasMovedInPart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 7, spares: 6, packs: 6})
		w.lie(refuses(client.ErrAbsent, func(n uint16) bool { return n < 2 }))
		w.pass(time.Hour)
		former := []*holders.Holder{w.holder(4), w.holder(5), w.holder(6)}
		for _, h := range former {
			h.Be(holders.Behaviour{Away: true})
		}
		w.pass(3 * deadAfter)
		if r := w.loop.Report(); r.Lost != 2 {
			t.Fatalf("%+v", r)
		}
		for _, h := range former {
			h.Be(holders.Behaviour{})
			w.greet(h)
		}
		w.pass(3 * deadAfter)
		w.whole()
		if r := w.loop.Report(); r.Healthy != 6 {
			t.Errorf("%+v", r)
		}
	})
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

// Holders that are busy for longer than dead-after, all that they have with it, are asked
// again, and what they prove counts again.
func TestBusyForDays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 7, packs: 6})
		w.pass(12 * time.Hour)
		busy := []*holders.Holder{w.holder(0), w.holder(1), w.holder(2), w.holder(3)}
		for _, h := range busy {
			h.Be(holders.Behaviour{Busy: true})
		}
		w.pass(2 * deadAfter)
		if r := w.loop.Report(); r.Healthy != 0 {
			t.Fatalf("%+v", r)
		}
		for _, h := range busy {
			h.Be(holders.Behaviour{})
		}
		w.pass(2 * deadAfter)
		w.whole()
	})
}

// Who is there for some hours of each day keeps its slot, and is called no liar.
func TestThereInTheEvening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 2, n: 4, spares: 2, packs: 20})
		h := w.holder(1)
		for range 10 {
			h.Be(holders.Behaviour{})
			w.greet(h)
			w.pass(3 * time.Hour)
			h.Be(holders.Behaviour{Away: true})
			w.pass(21 * time.Hour)
		}
		if p, _ := w.peers.Get(h.Key); p.Strikes != 0 || w.account.moved() != 0 {
			t.Errorf("%d strikes, %d slots were moved", p.Strikes, w.account.moved())
		}
	})
}

// The newest former holder of a slot came back with nothing: the one before gets the slot.
func TestNewestFormerHolderHasNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 2, n: 3, spares: 5, packs: 3})
		w.pass(time.Hour)
		away := holders.Behaviour{Away: true}
		first, other := w.holder(0), w.holder(1)
		first.Be(away)
		w.pass(deadAfter + 24*time.Hour)
		second := w.holder(0)
		second.Be(away)
		w.pass(deadAfter + 24*time.Hour)
		w.holder(0).Be(away)
		other.Be(away)
		w.pass(deadAfter + 48*time.Hour)
		if r := w.loop.Report(); r.Lost != 3 {
			t.Fatalf("%+v", r)
		}
		second.Store = storetest.NewMemory(1 << 40)
		for _, h := range []*holders.Holder{first, second} {
			h.Be(holders.Behaviour{})
			w.greet(h)
		}
		w.pass(3 * deadAfter)
		w.whole()
	})
}
