package run_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/wire"
	"skep/repair/health"
	"skep/repair/run"
	"skep/test/holders"
	"skep/test/storetest"
)

func TestAllWell(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 1, k: 4, n: 8, spares: 4, packs: 3})
		w.pass(5 * 24 * time.Hour)
		w.whole()
		if n := w.puts() + w.gets() + w.account.moved(); n != 0 {
			t.Errorf("%d repairs of what is whole", n)
		}
		for i := range 8 {
			h := w.holder(i)
			if n := h.Calls(wire.KindStatement); n < 36 {
				t.Errorf("holder %d was asked %d times", i, n)
			}
			if n := h.Calls(wire.KindProve); n < 30 {
				t.Errorf("holder %d was audited %d times", i, n)
			}
			if p, _ := w.peers.Get(h.Key); p.State != peers.Alive || !p.Pinned {
				t.Errorf("holder %d: %+v", i, p)
			}
		}
	})
}

func TestDeadHolderIsReplaced(t *testing.T) {
	for _, c := range []struct {
		name string
		shape
	}{
		{"from the owner's copy", shape{seed: 2, k: 4, n: 8, spares: 3, packs: 3, local: true}},
		{"from any k", shape{seed: 3, k: 4, n: 6, spares: 3, packs: 3}},
		{"many slots", shape{seed: 4, k: 8, n: 40, spares: 3, packs: 2, local: true}},
		{"from any k of many slots", shape{seed: 5, k: 2, n: 35, spares: 3, packs: 1, health: health.Config{Pace: 1 << 16}}},
		{"copies", shape{seed: 6, k: 1, n: 2, spares: 1, packs: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, c.shape)
				w.pass(6 * time.Hour)
				gone := []*holders.Holder{w.holder(0)}
				if c.n > 20 {
					gone = append(gone, w.holder(c.n-1))
				}
				for _, h := range gone {
					h.Be(holders.Behaviour{Away: true})
				}
				w.pass(deadAfter - 6*time.Hour)
				if w.account.moved() != 0 {
					t.Fatal("moved before it was dead")
				}
				if p, _ := w.peers.Get(gone[0].Key); p.State != peers.Suspect {
					t.Errorf("silent peer is %v", p.State)
				}
				w.pass(24 * time.Hour)
				if lazy := max(1, (c.n-c.k)/6); len(gone) >= lazy || c.local {
					w.whole()
					if w.account.moved() != len(gone) {
						t.Errorf("%d moves", w.account.moved())
					}
				} else if w.account.moved() != 0 {
					t.Error("what could wait was rebuilt from others")
				}
				if n := w.gets(); c.local && n != 0 {
					t.Errorf("%d shards fetched of packs that are here", n)
				}
			})
		})
	}
}

func TestReturnsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 7, k: 4, n: 7, spares: 2, packs: 2, local: true})
		w.pass(6 * time.Hour)
		w.holder(3).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter - 12*time.Hour)
		if r := w.loop.Report(); r.AtRisk != 2 {
			t.Errorf("while it is away: %+v", r)
		}
		w.holder(3).Be(holders.Behaviour{})
		w.pass(deadAfter)
		w.whole()
		if n := w.puts() + w.account.moved(); n != 0 {
			t.Errorf("%d repairs because somebody was away", n)
		}
		if p, _ := w.peers.Get(w.holder(3).Key); p.State != peers.Alive || p.Availability >= peers.Prior {
			t.Errorf("it was away, and is %v with availability %v", p.State, p.Availability)
		}
	})
}

// While nobody answers, it is our own line that is gone.
func TestOffline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 8, k: 2, n: 4, spares: 2, packs: 1, local: true})
		w.pass(6 * time.Hour)
		for _, h := range w.set.List() {
			h.Be(holders.Behaviour{Away: true})
		}
		w.pass(30 * 24 * time.Hour)
		for _, h := range w.set.List() {
			h.Be(holders.Behaviour{})
		}
		w.pass(12 * time.Hour)
		w.whole()
		if w.account.moved() != 0 {
			t.Error("slots were moved by somebody who was offline")
		}
	})
}

// That others than holders answer, shows that our line is not gone.
func TestAllHoldersDie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 9, k: 1, n: 2, spares: 2, packs: 2, local: true})
		w.pass(6 * time.Hour)
		gone := w.account.group.Slots[0]
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.holder(1).Be(holders.Behaviour{Away: true})
		for range 4 * 24 {
			for _, h := range w.set.List()[2:] {
				w.greet(h)
			}
			w.pass(time.Hour)
		}
		w.whole()
		if p, _ := w.peers.Get(gone); p.Pinned {
			t.Error("who holds nothing any more is still pinned")
		}
	})
}

func TestFlippedBits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 10, k: 4, n: 7, spares: 2, packs: 3, local: true})
		w.pass(time.Hour)
		liar := w.holder(2)
		liar.Be(holders.Behaviour{Flips: true})
		w.pass(36 * time.Hour)
		w.whole()
		if w.holder(2) == liar {
			t.Error("the liar still has its slot")
		}
		if p, _ := w.peers.Get(liar.Key); p.Strikes < health.MaxLies || p.State != peers.Dead {
			t.Errorf("the liar: %+v", p)
		}
		for i := range 7 {
			if p, _ := w.peers.Get(w.holder(i).Key); p.Strikes != 0 {
				t.Errorf("holder %d has %d strikes", i, p.Strikes)
			}
		}
	})
}

// Who lies to those who read, and to no audit, loses its slots, too; many lies at
// once are one.
func TestLiesToReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 12, k: 4, n: 7, spares: 2, packs: 3, local: true})
		w.pass(time.Hour)
		liar := w.holder(3)
		for i := range health.MaxLies {
			if w.holder(3) != liar {
				t.Fatalf("the liar lost its slot after %d lies", i)
			}
			for range 5 {
				w.peers.Strike(liar.Key)
			}
			w.pass(time.Hour)
		}
		w.whole()
		if p, _ := w.peers.Get(liar.Key); w.holder(3) == liar || p.State != peers.Dead {
			t.Errorf("the liar still has its slot: %+v", p)
		}
	})
}

// Who lied once gets no new slot for a month on the time scale of three days, and
// then again; what it holds it keeps.
func TestOneLieIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 13, k: 4, n: 7, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		spare := w.set.List()[7]
		w.peers.Strike(spare.Key)
		w.peers.Strike(w.holder(3).Key)
		w.holder(0).Be(holders.Behaviour{Away: true})
		days := func(n int) {
			for range n * 8 {
				w.greet(spare) // as the survey does
				w.pass(3 * time.Hour)
			}
		}
		days(29)
		if w.account.moved() > 0 {
			t.Fatal("a slot was given to who lied a month ago, or taken from who lied once")
		}
		days(3)
		w.whole()
		if w.account.moved() != 1 || w.holder(0) != spare {
			t.Errorf("%d slots were moved; the spare peer has the first: %v", w.account.moved(), w.holder(0) == spare)
		}
	})
}

// A holder that answers plain questions but never an audit does not have what
// it states.
func TestEvadesAudits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 11, k: 4, n: 7, spares: 2, packs: 3, local: true})
		w.pass(time.Hour)
		mute := w.holder(5)
		mute.Be(holders.Behaviour{Mute: true})
		w.pass(2 * deadAfter)
		w.whole()
		if w.holder(5) == mute {
			t.Error("who never proves anything still has its slot")
		}
	})
}

// queued lets the challenges of one holder wait behind other calls of ours.
type queued struct {
	*holders.Set
	whose group.PeerKey
	wait  time.Duration
}

func (q queued) Prove(ctx context.Context, p group.PeerKey, m *group.Manifest, slot uint8, nonce erasure.Nonce, count int) error {
	if p == q.whose {
		select {
		case <-time.After(q.wait):
		case <-ctx.Done():
			return &client.Error{Op: wire.KindProve, Peer: p, Err: fmt.Errorf("%w: %w", client.ErrWaited, ctx.Err())}
		}
	}
	return q.Set.Prove(ctx, p, m, slot, nonce, count)
}

// Nobody is blamed for challenges that waited behind other calls of ours, however long
// that was.
func TestQueueOfOurOwn(t *testing.T) {
	for name, c := range map[string]struct{ wait, delay time.Duration }{
		"never sent":             {wait: time.Hour},
		"sent late":              {wait: 5 * time.Second},
		"sent, with little left": {wait: 8 * time.Second, delay: 1900 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 13, k: 2, n: 4, spares: 2, packs: 3, local: true})
				w.holder(1).Be(holders.Behaviour{Delay: c.delay})
				w.config.Holders = queued{w.set, w.holder(1).Key, c.wait}
				w.loop = run.New(w.config)
				w.pass(2 * deadAfter)
				w.whole()
				if w.account.moved() != 0 {
					t.Error("a slot was moved because of our own queue")
				}
			})
		})
	}
}

// When our own line is busy, all proofs are late, and nobody is to blame.
func TestBusyLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 12, k: 2, n: 4, spares: 2, packs: 3, local: true})
		w.pass(time.Hour)
		for _, h := range w.set.List() {
			h.Be(holders.Behaviour{Delay: 5 * time.Second})
		}
		w.pass(2 * deadAfter)
		w.whole()
		if w.account.moved() != 0 {
			t.Error("slots were moved because our line was busy")
		}
		slow := w.holder(1)
		for _, h := range w.set.List() {
			h.Be(holders.Behaviour{})
		}
		slow.Be(holders.Behaviour{Delay: 5 * time.Second})
		w.pass(2 * deadAfter)
		w.whole()
		if w.holder(1) == slow {
			t.Error("who is always late, alone, still has its slot")
		}
	})
}

func TestHolderForgets(t *testing.T) {
	for _, local := range []bool{true, false} {
		t.Run(fmt.Sprintf("local %v", local), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 13, k: 4, n: 7, spares: 2, packs: 4, local: local})
				w.pass(time.Hour)
				h := w.holder(1)
				if err := h.Store.Drop(w.owner.ID); err != nil {
					t.Fatal(err)
				}
				w.pass(24 * time.Hour)
				w.whole()
				if w.holder(1) != h || w.account.moved() != 0 {
					t.Error("who is there lost its slot")
				}
				if n := h.Calls(wire.KindPut); n != 4 {
					t.Errorf("%d shards brought", n)
				}
				if p, _ := w.peers.Get(h.Key); p.Strikes != 0 {
					t.Error("it said itself that it has nothing: that is no lie")
				}
			})
		})
	}
}

func TestNewestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 14, k: 2, n: 4, packs: 3, local: true})
		w.pass(time.Hour)
		w.holder(2).Be(holders.Behaviour{Away: true})
		w.account.with(func(a *account) { a.wanted.Remove(1) })
		w.account.give(2, storetest.Dead(1))
		w.loop.Refresh()
		w.pass(12 * time.Hour)
		w.holder(2).Be(holders.Behaviour{})
		w.pass(12 * time.Hour)
		for i := range 4 {
			g, _ := w.holder(i).Store.Holding(w.owner.ID)
			if g.Lease.Number != 2 || g.Held.Has(1) {
				t.Errorf("holder %d has lease %d and %d packs", i, g.Lease.Number, g.Held.Count())
			}
		}
		w.whole()
		if n := w.puts(); n != 0 {
			t.Errorf("%d shards of dead packs were brought", n)
		}
	})
}

func TestFullTarget(t *testing.T) {
	for name, how := range map[string]holders.Behaviour{
		"full": {Full: true}, "unwilling": {Unwilled: true}, "away": {Away: true}, "silent": {Silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 15, k: 2, n: 4, spares: 2, packs: 3, local: true})
				spares := w.set.List()[4:]
				w.peers.Said(spares[0].Key, wire.Hello{Offered: 1 << 40, Free: 1 << 40}) // it looks best
				spares[0].Be(how)
				w.pass(time.Hour)
				w.holder(0).Be(holders.Behaviour{Away: true})
				w.pass(deadAfter + 12*time.Hour)
				w.whole()
				if w.holder(0) != spares[1] {
					t.Error("the slot did not go to the other spare")
				}
			})
		})
	}
}

// A holder that has lost its shards and has no room for them gives up the slot.
func TestFullHolder(t *testing.T) {
	for name, how := range map[string]holders.Behaviour{"full": {Full: true}, "unwilling": {Unwilled: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 16, k: 2, n: 4, spares: 1, packs: 3, local: true})
				w.pass(time.Hour)
				h := w.holder(3)
				if err := h.Store.Drop(w.owner.ID); err != nil {
					t.Fatal(err)
				}
				h.Be(how)
				w.pass(24 * time.Hour)
				w.whole()
				if w.holder(3) == h {
					t.Error("the slot is still with who will not take the shards")
				}
			})
		})
	}
}

// Where nobody else can have the slot of a holder that was full, or did not want it, it
// keeps the slot, and gets what that lacks when it has room, or wants it, again.
func TestFullHolderOfWhomThereIsNoOther(t *testing.T) {
	for name, how := range map[string]holders.Behaviour{"full": {Full: true}, "unwilling": {Unwilled: true}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, shape{seed: 16, k: 2, n: 4, packs: 3, local: true})
				w.pass(time.Hour)
				h := w.holder(3)
				if err := h.Store.Drop(w.owner.ID); err != nil {
					t.Fatal(err)
				}
				h.Be(how)
				w.pass(24 * time.Hour)
				if w.shards(h) != 0 {
					t.Fatal("it has taken something")
				}
				w.comeBack(h)
				w.pass(2 * 24 * time.Hour)
				w.whole()
			})
		})
	}
}

func TestEndedLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 17, k: 2, n: 4, spares: 2, packs: 2, local: true})
		w.pass(time.Hour)
		_, word := w.owner.Lease(2, time.Now().Unix()-1)
		w.account.with(func(a *account) { a.lease, a.number = word, 2 })
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter + 24*time.Hour)
		if n := w.puts(); n != 0 {
			t.Errorf("%d shards brought without a lease", n)
		}
		w.account.give(3)
		w.pass(2 * 24 * time.Hour)
		w.whole()
	})
}

func TestPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 18, k: 2, n: 4, spares: 2, packs: 2, local: true})
		w.loop.Pause(true)
		w.pass(time.Hour)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(2 * deadAfter)
		r := w.loop.Report()
		if w.account.moved() != 0 || !r.Paused || r.Injured != 2 || r.Peers[peers.Dead] != 1 {
			t.Errorf("paused: %+v, %d moves", r, w.account.moved())
		}
		if p, ok := w.loop.PackHealth(w.owner.ID, 1); !ok || p.Health != health.Injured || p.Live != 3 {
			t.Errorf("pack 1: %+v", p)
		}
		w.loop.Pause(false)
		w.pass(time.Hour)
		w.whole()
	})
}

// While a disk takes its time to note a new holder, others are not held up, and what
// is read of the account meanwhile does not undo the move.
func TestAccountIsSlowToNoteAMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 19, k: 2, n: 4, spares: 3, packs: 3, local: true})
		w.account.onMove = func() {
			<-time.After(2 * time.Hour)
			for tries := 0; !w.loop.Free(); tries++ { // a Step has it for a moment
				if <-time.After(time.Second); tries == 100 {
					panic("the state is locked")
				}
			}
		}
		w.pass(time.Hour)
		w.holder(0).Be(holders.Behaviour{Away: true})
		for begin := time.Now(); time.Since(begin) < deadAfter+6*time.Hour; {
			<-time.After(10 * time.Minute)
			w.loop.Refresh()
			w.loop.Step(t.Context()) // also while the account is being told
			synctest.Wait()
		}
		w.pass(24 * time.Hour)
		w.whole()
		if n := w.account.moved(); n != 1 {
			t.Errorf("%d moves for one that is gone", n)
		}
	})
}

// A move is given up when the holder returns while it is under way.
func TestCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 19, k: 2, n: 4, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		back, spare := w.holder(0), w.set.List()[4]
		back.Be(holders.Behaviour{Away: true})
		w.pass(deadAfter - 3*time.Hour)
		spare.Be(holders.Behaviour{Delay: 15 * time.Second}) // of each answer
		for w.loop.Report().Repairs == 0 {
			<-time.After(time.Minute)
			w.loop.Step(t.Context())
			synctest.Wait()
		}
		<-time.After(50 * time.Second) // it asks for the lease, and has one shard
		back.Be(holders.Behaviour{})
		w.peers.Seen(back.Key, "") // it says hello
		w.loop.Step(t.Context())
		if w.shards(spare) == 0 {
			t.Fatal("nothing was brought yet")
		}
		begin := time.Now()
		w.loop.Wait()
		if d := time.Since(begin); d > 14*time.Second {
			t.Errorf("the move went on for %v", d)
		}
		spare.Be(holders.Behaviour{})
		w.pass(24 * time.Hour)
		w.whole()
		if w.holder(0) != back || w.account.moved() != 0 {
			t.Error("the slot was moved although its holder is back")
		}
		w.tidy(nil)
	})
}

// What is pushed while a statement is on its way is not taken for missing.
func TestAppendMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 20, k: 2, n: 4, packs: 1, local: true})
		w.pass(time.Hour)
		h := w.holder(1)
		h.Be(holders.Behaviour{Lag: 3 * time.Second})
		for n := uint16(1); n < 5; n++ {
			for before := h.Calls(wire.KindStatement); h.Calls(wire.KindStatement) == before; {
				<-time.After(time.Minute)
				w.loop.Step(t.Context())
				synctest.Wait()
			}
			w.append(n, true)
			w.loop.Refresh()
			w.loop.Step(t.Context())
			w.settle()
			if p, ok := w.loop.PackHealth(w.owner.ID, n); !ok || p.Live != 4 {
				t.Errorf("pack %d, which was just pushed: %+v", n, p)
			}
		}
		h.Be(holders.Behaviour{})
		w.pass(time.Hour)
		w.whole()
		if n := w.puts(); n != 0 {
			t.Errorf("%d shards brought again", n)
		}
	})
}

// What is pushed after the account was read, and before it is told of
// something else in the same slot, stays acknowledged.
func TestAppendWhileAccountIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 23, k: 2, n: 4, packs: 2, local: true})
		w.pass(time.Hour)
		w.loop.Pause(true)
		if err := w.holder(1).Store.Drop(w.owner.ID); err != nil {
			t.Fatal(err)
		}
		next := uint16(2)
		for w.account.has(1, 0) && next < 200 {
			w.account.with(func(a *account) {
				a.onRead = func(a *account) {
					a.mu.Unlock()
					w.append(next, true)
					a.mu.Lock()
					next++
				}
			})
			w.pass(w.config.Health.Tick())
		}
		if w.account.has(1, 0) || next == 2 {
			t.Fatalf("what the holder forgot was not noted; %d packs were appended", next-2)
		}
		w.account.with(func(a *account) {
			if a.blind {
				t.Error("a shard was called gone that the account had not named")
			}
		})
	})
}

// A slot that was moved while the account was being read stays moved.
func TestMovedWhileAccountIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 21, k: 2, n: 4, spares: 2, packs: 2, local: true})
		w.pass(time.Hour)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter - 3*time.Hour)
		for _, h := range w.set.List()[4:] {
			h.Be(holders.Behaviour{Delay: 10 * time.Second})
		}
		for w.loop.Report().Repairs == 0 {
			<-time.After(time.Minute)
			w.loop.Step(t.Context())
			synctest.Wait()
		}
		w.account.with(func(a *account) {
			a.onRead = func(a *account) { // what follows happens after the account was looked at
				a.mu.Unlock()
				w.loop.Wait()
				a.mu.Lock()
			}
		})
		w.loop.Refresh()
		w.loop.Step(t.Context())
		if r := w.loop.Report(); r.Repairs != 0 || r.Peers[peers.Alive] != 4 || r.Missing != 0 {
			t.Errorf("just after the move: %+v", r)
		}
		w.pass(24 * time.Hour)
		w.whole()
		if w.account.moved() != 1 {
			t.Errorf("%d moves", w.account.moved())
		}
	})
}

func TestBrokenAccount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 22, k: 2, n: 4, spares: 2, packs: 2, local: true})
		w.pass(time.Hour)
		w.account.with(func(a *account) { a.broken = errors.New("disk is away") })
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(2 * deadAfter)
		if w.account.moved() != 0 {
			t.Error("moved although nobody could note it")
		}
		w.account.with(func(a *account) { a.broken = nil })
		w.pass(24 * time.Hour)
		w.whole()
	})
}

// A damaged copy on this device is not built from.
func TestDamagedCopy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 23, k: 2, n: 4, spares: 1, packs: 1, local: true})
		w.account.packs[0].Shards[0][5] ^= 1
		w.pass(time.Hour)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter + 12*time.Hour)
		w.whole()
		if w.gets() == 0 {
			t.Error("nothing was fetched")
		}
	})
}

func TestSavedState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 24, k: 2, n: 4, spares: 2, packs: 2, local: true})
		w.pass(time.Hour)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter - 12*time.Hour)
		w.config.Saved = w.loop.Save()
		w.loop = run.New(w.config)
		w.pass(24 * time.Hour)
		w.whole()
		if w.account.moved() != 1 {
			t.Errorf("%d moves: how long it was silent was forgotten", w.account.moved())
		}
		w.config.Saved = []byte("no such thing")
		w.loop = run.New(w.config)
		w.pass(time.Hour)
		w.whole()
	})
}

// Run ends soon after its context, whatever is under way, and leaves nothing
// behind; the bubble would not end otherwise.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 25, k: 2, n: 4, spares: 2, packs: 2, local: true, health: health.Config{DeadAfter: time.Hour}})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- w.loop.Run(ctx) }()
		<-time.After(10 * time.Minute)
		w.holder(0).Be(holders.Behaviour{Away: true})
		<-time.After(2 * time.Hour)
		w.whole()
		w.holder(0).Be(holders.Behaviour{Silent: true})
		w.holder(1).Be(holders.Behaviour{Silent: true})
		<-time.After(3*time.Minute + 7*time.Second)
		begin := time.Now()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > 0 {
			t.Errorf("it took %v to end", d)
		}
		if r := w.loop.Report(); r.Repairs != 0 {
			t.Errorf("after the end: %+v", r)
		}
		w.loop.Step(ctx) // begins nothing
		w.loop.Wait()
	})
}

// Whatever happens, as long as no more is lost than the coding allows, all is
// whole in the end, and nobody honest was struck.
func TestAnyMisfortune(t *testing.T) {
	last := uint64(105)
	if testing.Short() {
		last = 101
	}
	for seed := uint64(100); seed <= last; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { misfortune(t, seed) })
		})
	}
}

func misfortune(t *testing.T, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, 9))
	k := 1 + rnd.IntN(4)
	n := k + 2 + rnd.IntN(4)
	of := shape{seed: seed, k: k, n: n, spares: 8, packs: 1 + uint16(rnd.IntN(4)), local: rnd.IntN(2) == 0,
		health: health.Config{DeadAfter: 6 * time.Hour, Leaves: 48}}
	if testing.Short() {
		of.class = erasure.MinClass + 2
	}
	w := newWorld(t, of)
	w.pass(time.Hour)
	liars := map[group.PeerKey]bool{}
	next := uint16(100)
	for range 6 {
		h := w.holder(rnd.IntN(n))
		switch rnd.IntN(6) {
		case 0:
			h.Be(holders.Behaviour{Away: true})
		case 1:
			h.Be(holders.Behaviour{Flips: true})
			liars[h.Key] = true
		case 2:
			if err := h.Store.Drop(w.owner.ID); err != nil {
				t.Fatal(err)
			}
		case 3:
			h.Be(holders.Behaviour{Silent: true})
		case 4:
			if w.incomplete() == nil {
				w.append(next, rnd.IntN(2) == 0)
				next++
			}
		case 5:
			for _, h := range w.set.List() {
				if !liars[h.Key] && rnd.IntN(2) == 0 {
					h.Be(holders.Behaviour{})
				}
			}
		}
		w.pass(time.Duration(rnd.IntN(20)) * time.Hour)
		if r := w.loop.Report(); r.Lost > 0 && k > 1 {
			break // by chance too much at once
		}
		w.pass(20 * time.Hour)
	}
	for _, h := range w.set.List() {
		if !liars[h.Key] {
			h.Be(holders.Behaviour{})
			w.greet(h)
		}
		if p, _ := w.peers.Get(h.Key); p.Strikes > 0 && !liars[h.Key] {
			t.Errorf("honest %v has %d strikes", h.Key, p.Strikes)
		}
	}
	w.pass(60 * time.Hour)
	if r := w.loop.Report(); r.Lost == 0 {
		w.whole()
		w.tidy(liars)
	}
}
