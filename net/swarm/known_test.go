package swarm

import (
	"bytes"
	"testing"
	"testing/synctest"

	"skep/net/wire"
)

// readsKnown fails unless a range of slot 0 that the reader knows comes back
// right; it returns whether it fitted.
func (b *bench) readsKnown() (fitted bool) {
	b.Helper()
	want := b.pack.bytes[100:30_000]
	got, fitted, err := b.ReadKnown(b.Context(), b.pack.PackRef, 100, len(want), nil, func(p []byte) bool { return bytes.Equal(p, want) })
	if err != nil || !bytes.Equal(got, want) {
		b.Fatalf("%d bytes, %v", len(got), err)
	}
	return fitted
}

func TestReadKnownNeedsNoProof(t *testing.T) {
	inBubble(t, 4, 7, 0, func(b *bench) {
		if !b.readsKnown() || b.f.allCalls(wire.KindGet) != 1 {
			t.Error("what fits was proved, too")
		}
		b.f.set(gone, 0)
		if b.readsKnown() {
			t.Error("what was rebuilt is said to have been looked at")
		}
		b.took(0)
	})
}

// Wrong bytes never come through, and cost a liar his name, but not one whose
// disk is bad.
func TestReadKnownOfLiars(t *testing.T) {
	for m, strikes := range map[mood]int{lying: 1, twoFaced: 1, rotten: 0} {
		inBubble(t, 4, 7, 0, func(b *bench) {
			b.f.set(m, 0)
			if b.readsKnown() {
				t.Errorf("%v: what did not fit is said to", m)
			}
			if n := b.f.calls(kindBare, 0); n != 1 {
				t.Errorf("%v: asked %d times without proof", m, n)
			}
			if p := b.peer(0); p.Strikes != strikes {
				t.Errorf("%v: %d strikes", m, p.Strikes)
			}
			for i := 1; i < 7; i++ {
				if b.peer(i).Strikes != 0 {
					t.Errorf("%v: peer %d is blamed", m, i)
				}
			}
			b.took(0)
		})
	}
}

// Who expects something that the pack does not have gets what it has, proved,
// and nobody is blamed.
func TestReadKnownOfSomethingElse(t *testing.T) {
	inBubble(t, 2, 4, 0, func(b *bench) {
		got, fitted, err := b.ReadKnown(b.Context(), b.pack.PackRef, 0, 1000, nil, func([]byte) bool { return false })
		if err != nil || fitted || !bytes.Equal(got, b.pack.bytes[:1000]) {
			t.Errorf("%d bytes, fitted %v, %v", len(got), fitted, err)
		}
		if b.peer(0).Strikes != 0 {
			t.Error("the holder is blamed")
		}
	})
}

// Who sends something wrong and then keeps the proof back is waited for no
// longer than one who sends nothing.
func TestReadKnownOfOneWhoStalls(t *testing.T) {
	inBubble(t, 4, 7, 0, func(b *bench) {
		b.f.set(stalling, 0)
		if b.readsKnown() {
			t.Error("what did not fit is said to")
		}
		b.took(testHedge)
	})
}

// border is a range that lies in slots 0 to 2, with something of each unit beside
// it.
func (b *bench) border() (off, n int) {
	size := b.pack.manifest.ShardSize()
	return size - 1000, size + 2000
}

// readsAcross fails unless a range across shards that the reader knows comes
// back right; it returns whether it fitted, and what rooms were given.
func (b *bench) readsAcross() (fitted bool, rooms [][]byte) {
	b.Helper()
	off, n := b.border()
	want := b.pack.bytes[off:][:n]
	got, fitted, err := b.ReadKnown(b.Context(), b.pack.PackRef, off, n, func(n int) []byte {
		rooms = append(rooms, make([]byte, n))
		return rooms[len(rooms)-1]
	}, func(p []byte) bool { return bytes.Equal(p, want) })
	if err != nil || !bytes.Equal(got, want) {
		b.Fatalf("%d bytes, %v", len(got), err)
	}
	if last := rooms[len(rooms)-1]; fitted && (len(last) < n || !bytes.Contains(last, want)) {
		b.Error("what fitted is not where there was room for it")
	}
	return fitted, rooms
}

func TestReadKnownAcrossShardsNeedsNoProof(t *testing.T) {
	inBubble(t, 4, 7, 0, func(b *bench) {
		fitted, rooms := b.readsAcross()
		if !fitted || len(rooms) != 1 || b.f.allCalls(kindProved) != 0 {
			t.Errorf("fitted %v, %d rooms, %d proofs", fitted, len(rooms), b.f.allCalls(kindProved))
		}
		b.took(0)
	})
}

// Of a known range across shards, pieces that are rebuilt are proved, and those
// of holders that are there are not. Nobody who is late writes to where the range
// lies.
func TestReadKnownAcrossShardsRebuildsPieces(t *testing.T) {
	for _, m := range []mood{gone, absent, slow} {
		inBubble(t, 4, 7, 0, func(b *bench) {
			b.f.set(m, 1)
			fitted, rooms := b.readsAcross()
			if !fitted || len(rooms) != 2 {
				t.Errorf("%v: fitted %v, %d rooms", m, fitted, len(rooms))
			}
			if n := b.f.allCalls(kindProved); n != 4 {
				t.Errorf("%v: %d proofs", m, n)
			}
		})
	}
}

// A second holder of a slot does not share the room with the first, who is late
// and may still write to it.
func TestReadKnownAcrossShardsOfSecondHolder(t *testing.T) {
	inBubble(t, 4, 4, 1, func(b *bench) {
		b.f.holdAt(b.pack, 4, 1, b.pack.shards[1])
		b.f.found[b.pack.Group] = append(b.f.found[b.pack.Group], peerKey(4))
		b.f.set(slow, 1)
		fitted, rooms := b.readsAcross()
		synctest.Wait()
		off, n := b.border()
		if !fitted || len(rooms) != 2 || !bytes.Contains(rooms[1], b.pack.bytes[off:][:n]) {
			t.Errorf("fitted %v, %d rooms", fitted, len(rooms))
		}
	})
}

func TestReadKnownAcrossShardsOfLiars(t *testing.T) {
	for m, strikes := range map[mood]int{lying: 1, twoFaced: 1, rotten: 0} {
		inBubble(t, 4, 7, 0, func(b *bench) {
			b.f.set(m, 1)
			if fitted, _ := b.readsAcross(); fitted {
				t.Errorf("%v: what did not fit is said to", m)
			}
			for i := range 7 {
				want := 0
				if i == 1 {
					want = strikes
				}
				if p := b.peer(i); p.Strikes != want {
					t.Errorf("%v: %d strikes of peer %d, not %d", m, p.Strikes, i, want)
				}
			}
			b.took(0)
		})
	}
}
