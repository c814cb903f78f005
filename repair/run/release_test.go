package run_test

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/wire"
	"skep/test/holders"
	"skep/test/storetest"
)

// leave has the holder of a slot be away until its slot has gone to somebody else.
func (w *world) leave(slot int) *holders.Holder {
	w.t.Helper()
	h := w.holder(slot)
	h.Be(holders.Behaviour{Away: true})
	w.pass(deadAfter + 24*time.Hour)
	if w.holder(slot) == h {
		w.t.Fatal("the slot was not moved")
	}
	return h
}

// afterLeave has a test go on, in a bubble, when a holder has left that slot.
func afterLeave(t *testing.T, s shape, slot int, test func(*testing.T, *world, *holders.Holder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, s)
		w.pass(time.Hour)
		test(t, w, w.leave(slot))
	})
}

// comeBack has a holder that was away say hello.
func (w *world) comeBack(h *holders.Holder) {
	h.Be(holders.Behaviour{})
	w.greet(h)
}

// shards is how many shards of the group a holder has.
func (w *world) shards(h *holders.Holder) int {
	g, _ := h.Store.Holding(w.owner.ID)
	return g.Held.Count()
}

// tidy fails the test if anybody has shards that is in no slot, or is thought to.
func (w *world) tidy(except map[group.PeerKey]bool) {
	w.t.Helper()
	in := map[group.PeerKey]bool{}
	w.account.with(func(a *account) {
		for _, p := range a.group.Slots {
			in[p] = true
		}
	})
	for _, h := range w.set.List() {
		if n := w.shards(h); n > 0 && !in[h.Key] && !except[h.Key] {
			w.t.Errorf("%v has no slot, and %d shards", h.Key, n)
		}
	}
	for _, f := range w.account.former() {
		if !except[f.Holder] {
			w.t.Errorf("%v is still thought to have something of slot %d", f.Holder, f.Slot)
		}
	}
}

// A holder that returns after its slot went to somebody else gives its room back;
// also of a group of which nothing is wanted any more.
func TestFormerHolderIsReleased(t *testing.T) {
	for name, dead := range map[string]bool{"packs that live": false, "dead packs": true} {
		t.Run(name, func(t *testing.T) {
			afterLeave(t, shape{seed: 40, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
				asked := h.Calls(wire.KindStatement)
				w.pass(deadAfter)
				if n := h.Calls(wire.KindStatement) - asked; n > 1 {
					t.Errorf("one that is away was asked %d times", n)
				}
				if dead {
					w.account.with(func(a *account) {
						a.group.Dead, a.wanted, a.local = a.wanted, group.Bitmap{}, group.Bitmap{}
					})
					w.account.give(w.account.number+1, storetest.Dead(0, 1, 2))
				}
				w.comeBack(h)
				w.pass(2 * time.Hour)
				if n := w.shards(h); n != 0 {
					t.Errorf("%d shards are left", n)
				}
				w.tidy(nil)
				if !dead {
					w.whole()
				}
				if n := h.Calls(wire.KindRelease); n != 1 {
					t.Errorf("it was released %d times", n)
				}
				w.pass(2 * deadAfter)
				if n := h.Calls(wire.KindRelease); n != 1 {
					t.Errorf("it was released %d times", n)
				}
			})
		})
	}
}

// What a former holder has is not deleted while it may be needed.
func TestFormerHolderIsKeptWhileNeeded(t *testing.T) {
	afterLeave(t, shape{seed: 41, k: 2, n: 4, spares: 2, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(12 * time.Hour) // it is suspect
		w.comeBack(h)
		w.pass(12 * time.Hour)
		if n := w.shards(h); n != 3 {
			t.Errorf("%d shards are left while the slot's holder is silent", n)
		}
		puts := w.puts()
		w.pass(deadAfter)
		if w.holder(0) != h {
			t.Error("the slot went to somebody else than who has its shards")
		}
		if n := w.puts() - puts; n != 0 {
			t.Errorf("%d shards were brought to who had them", n)
		}
		w.whole()
	})
}

// Nobody is released on the account's word alone: the holder of the slot is asked.
func TestFormerHolderIsKeptWhenItsSuccessorHasLess(t *testing.T) {
	afterLeave(t, shape{seed: 45, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		if err := w.holder(0).Store.Drop(w.owner.ID); err != nil { // without a word to anybody
			t.Fatal(err)
		}
		w.comeBack(h)
		w.pass(10 * time.Minute)
		if n := w.shards(h); n != 3 {
			t.Errorf("%d shards are left", n)
		}
		w.pass(deadAfter)
		w.whole()
		w.tidy(nil)
	})
}

// Nor is anybody released on its successor's word: that has to prove some of it.
func TestFormerHolderIsKeptWhenItsSuccessorProvesNothing(t *testing.T) {
	for name, how := range map[string]holders.Behaviour{"it flips bits": {Flips: true}, "it says nothing": {Mute: true}} {
		t.Run(name, func(t *testing.T) {
			afterLeave(t, shape{seed: 48, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
				w.holder(0).Be(how)
				w.comeBack(h)
				w.pass(10 * time.Minute)
				if n := w.shards(h); n != 3 || h.Calls(wire.KindRelease) > 0 {
					t.Errorf("%d shards are left after %d releases", n, h.Calls(wire.KindRelease))
				}
				w.holder(0).Be(holders.Behaviour{})
				w.pass(2 * deadAfter)
				w.whole()
				w.tidy(nil)
			})
		})
	}
}

// A release has nothing deleted that came after its owner looked.
func TestPackThatComesDuringARelease(t *testing.T) {
	afterLeave(t, shape{seed: 45, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		w.account.onRelease = func() {
			lease, _, _ := w.account.Lease(w.owner.ID)
			h.Fill(lease, w.owner.Pack(t, 9), 0)
		}
		w.comeBack(h)
		w.pass(24 * time.Hour)
		if g, _ := h.Store.Holding(w.owner.ID); g.Held.Count() != 1 || !g.Held.Has(9) || h.Calls(wire.KindRelease) == 0 {
			t.Errorf("%d shards are left after %d releases", g.Held.Count(), h.Calls(wire.KindRelease))
		}
		w.account.with(func(a *account) { a.group.Dead.Add(9) })
		w.pass(24 * time.Hour)
		w.tidy(nil)
	})
}

// Of packs that the account knows nothing of, as another device has added them, a
// former holder is asked to delete nothing.
func TestFormerHolderHasUnknownPacks(t *testing.T) {
	afterLeave(t, shape{seed: 45, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		h.Fill(w.account.lease, w.owner.Pack(t, 9), 0)
		w.comeBack(h)
		w.pass(24 * time.Hour)
		if n := w.shards(h); n != 4 {
			t.Errorf("%d shards are left", n)
		}
		w.account.with(func(a *account) { a.group.Dead.Add(9) })
		w.pass(24 * time.Hour)
		w.tidy(nil)
	})
}

// The only spare peer is one that has shards of another slot: it is released first.
func TestFormerHolderTakesAnotherSlot(t *testing.T) {
	afterLeave(t, shape{seed: 42, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		w.holder(2).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter + 24*time.Hour) // nobody is there to take that slot
		w.comeBack(h)
		w.pass(12 * time.Hour)
		w.whole()
		if w.holder(2) != h {
			t.Error("the slot is with nobody")
		}

		// An old release says nothing to it: it was given a slot since.
		var old []byte
		w.account.with(func(a *account) {
			old = group.Release{Holder: h.Key, Number: a.number, Packs: group.AllPacks}.Sign(a.owner.Key)
		})
		if _, err := w.set.Release(t.Context(), h.Key, old); !errors.Is(err, client.ErrRefused) {
			t.Errorf("a release from before it was given the slot: %v", err)
		}
		w.whole()
	})
}

// A release that was made before a former holder got its slot back, and reaches it
// after that, deletes nothing: it is given the newest lease before it counts as holder.
func TestReleaseThatComesTooLate(t *testing.T) {
	afterLeave(t, shape{seed: 47, k: 2, n: 4, spares: 1, packs: 3, local: true}, 0, func(t *testing.T, w *world, h *holders.Holder) {
		w.account.give(w.account.number + 1)
		late := group.Release{Holder: h.Key, Number: w.account.number, Packs: group.AllPacks}.Sign(w.owner.Key)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(12 * time.Hour) // it is suspect: who comes back is not released
		moved := 0
		w.account.onMove = func() {
			moved++
			if _, err := w.set.Release(t.Context(), h.Key, late); !errors.Is(err, client.ErrRefused) {
				t.Errorf("a release from before it was given the slot: %v", err)
			}
		}
		puts := w.puts()
		w.comeBack(h)
		w.pass(deadAfter)
		if w.holder(0) != h || moved != 1 || w.puts() != puts {
			t.Errorf("%d slots moved, %d shards were brought", moved, w.puts()-puts)
		}
		w.whole()
	})
}

// A former holder that does not take the newest lease does not get its slot back, as a
// release that was sent before would have it delete what counts as there.
func TestFormerHolderWithAnOldLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 48, k: 2, n: 4, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		h := w.leave(0)
		w.account.give(w.account.number + 1)
		w.holder(0).Be(holders.Behaviour{Away: true})
		w.pass(12 * time.Hour) // it is suspect: who comes back is not released
		w.comeBack(h)
		h.Be(holders.Behaviour{Unwilled: true})
		w.pass(deadAfter)
		if w.holder(0) == h {
			t.Error("it counts as holder with a lease of before")
		}
		h.Be(holders.Behaviour{})
		w.pass(deadAfter)
		if w.holder(0) != h {
			t.Error("it does not get its slot back though it takes the newest lease")
		}
		w.whole()
	})
}

// The only spare peer has shards of another slot, and nobody knows: that is found
// out when it is to take one.
func TestSpareHasAnotherSlot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 46, k: 2, n: 4, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		spare := w.set.List()[4]
		spare.Fill(w.account.lease, w.account.packs[1], 0)
		w.leave(2)
		w.whole()
		if w.holder(2) != spare {
			t.Error("the slot is with nobody")
		}
	})
}

// The only spare peer refuses a slot, and says to have shards of one that is not there:
// nobody takes note of that, so that the account of the group can be read.
func TestSpareSaysASlotThatIsNotThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 47, k: 2, n: 4, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		liar := w.set.List()[4]
		wide := storetest.NewOwner(47, w.owner.Class, 2, 20)
		liar.Fill(w.account.lease, wide.Pack(t, 1), 19)
		w.holder(2).Be(holders.Behaviour{Away: true})
		w.pass(deadAfter + 24*time.Hour)
		if liar.Calls(wire.KindAdmit) == 0 || liar.Calls(wire.KindStatement) == 0 {
			t.Fatal("it was not asked")
		}
		w.account.with(func(a *account) {
			if !a.group.FormerValid() {
				t.Errorf("former holders %v", a.group.Former)
			}
		})
		w.greet(w.set.Add(47))
		w.pass(24 * time.Hour)
		w.whole()
	})
}

// Two slots have no holder, and the only spare peer has the shards of one.
func TestFormerHolderReturnsToTwoEmptySlots(t *testing.T) {
	for _, first := range []int{0, 3} {
		afterLeave(t, shape{seed: 43, k: 1, n: 4, spares: 1, packs: 2, local: true}, first, func(t *testing.T, w *world, h *holders.Holder) {
			for _, slot := range []int{0, 3} {
				w.holder(slot).Be(holders.Behaviour{Away: true})
			}
			w.pass(deadAfter + 24*time.Hour)
			w.comeBack(h)
			w.pass(12 * time.Hour)
			if w.holder(first) != h {
				t.Errorf("slot %d did not come back to who has its shards", first)
			}
			other := w.set.Add(43)
			w.greet(other)
			w.pass(12 * time.Hour)
			w.whole()
		})
	}
}

// A holder that gives up its slot, as it has no room for what it lacks, gives up
// the rest as well.
func TestRelievedHolderIsReleased(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, shape{seed: 44, k: 2, n: 4, spares: 1, packs: 3, local: true})
		w.pass(time.Hour)
		h := w.holder(3)
		w.account.with(func(a *account) {
			p := a.owner.Pack(t, 3)
			a.packs[3] = p
			a.wanted.Add(3)
			a.local.Add(3)
			for i := range a.held[:3] {
				w.set.Of(a.group.Slots[i]).Fill(a.lease, p, uint8(i))
				a.held[i].Add(3)
			}
		})
		h.Be(holders.Behaviour{Full: true})
		w.pass(24 * time.Hour)
		w.whole()
		if n := w.shards(h); w.holder(3) == h || n != 0 {
			t.Errorf("it has %d shards", n)
		}
		w.tidy(nil)
	})
}
