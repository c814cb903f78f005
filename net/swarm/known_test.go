package swarm

import (
	"bytes"
	"testing"

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
