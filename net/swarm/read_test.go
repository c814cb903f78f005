package swarm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/wire"
)

// reads fails unless a range of the pack comes back right.
func (b *bench) reads(off, n int) {
	b.Helper()
	got, err := b.ReadRange(b.Context(), b.pack.PackRef, off, n)
	if err != nil {
		b.Fatalf("range %d+%d: %v", off, n, err)
	}
	if !bytes.Equal(got, b.pack.bytes[off:off+n]) {
		b.Fatalf("range %d+%d: wrong bytes", off, n)
	}
}

// fails fails unless reading the whole pack ends with an error that is want.
func (b *bench) fails(want error) error {
	b.Helper()
	got, err := b.ReadRange(b.Context(), b.pack.PackRef, 0, b.pack.Class.Size())
	if !errors.Is(err, want) || got != nil {
		b.Fatalf("%d bytes and %v, want %v", len(got), err, want)
	}
	return err
}

func TestReadRangeAcrossShards(t *testing.T) {
	for _, k := range []int{1, 2, 3, 4} {
		inBubble(t, k, k+2, 0, func(b *bench) {
			size, whole := b.pack.manifest.ShardSize(), b.pack.Class.Size()
			b.reads(0, 0)
			b.reads(0, 1)
			b.reads(whole-1, 1)
			b.reads(0, whole)
			for border := size; border < whole; border += size {
				b.reads(border-1, 2)
				b.reads(border, 1)
				b.reads(border-1, 1)
				b.reads(border-size/2, min(70_001, whole-border+size/2))
			}
			b.took(0)
		})
	}
}

func TestReadRangeRefusesWhatIsOutside(t *testing.T) {
	inBubble(t, 2, 3, 0, func(b *bench) {
		whole := b.pack.Class.Size()
		for _, r := range [][2]int{{-1, 1}, {0, -1}, {0, whole + 1}, {whole, 1}, {1, int(^uint(0) >> 1)}} {
			if _, err := b.ReadRange(b.Context(), b.pack.PackRef, r[0], r[1]); err == nil {
				t.Errorf("range %d+%d: no error", r[0], r[1])
			}
		}
		ref := b.pack.PackRef
		ref.Coding = erasure.NewCoding(64, 100)
		if _, err := b.ReadRange(b.Context(), ref, 0, 1); err == nil {
			t.Error("a coding that the class does not allow: no error")
		}
		if n := b.f.allCalls(wire.KindGet); n != 0 {
			t.Errorf("%d ranges were asked for", n)
		}
	})
}

func TestReadRangeAsksNoMoreThanItNeeds(t *testing.T) {
	inBubble(t, 4, 7, 0, func(b *bench) {
		b.reads(10, 100)
		if n := b.f.allCalls(wire.KindGet); n != 1 {
			t.Errorf("%d holders were asked for a range of one shard", n)
		}
		b.reads(0, b.pack.Class.Size())
		if n := b.f.allCalls(wire.KindGet); n != 5 {
			t.Errorf("%d ranges were asked for, want 1 and 4", n)
		}
	})
}

// With n−k holders away in whatever way, everything is read.
func TestReadRangeWithoutSome(t *testing.T) {
	for _, m := range []mood{gone, absent, lying, busy} {
		for _, k := range []int{1, 3, 4} {
			t.Run(fmt.Sprintf("%v/%d", m, k), func(t *testing.T) {
				inBubble(t, k, k+3, 0, func(b *bench) {
					b.f.set(m, 0, k, 2)
					b.reads(0, b.pack.Class.Size())
					b.took(0)
				})
			})
		}
	}
}

func TestReadRangeIsHedged(t *testing.T) {
	for _, k := range []int{1, 2, 3, 4} {
		inBubble(t, k, k+2, 0, func(b *bench) {
			b.f.set(slow, 0)
			b.reads(0, 1000)
			b.took(testHedge)
			if n := b.f.allCalls(wire.KindGet); n != k+1 {
				t.Errorf("k=%d: %d holders were asked, want the slow one and k", k, n)
			}
		})
	}
}

// Others are asked beside one that sends nearly all, and then nothing, or a byte now and
// then.
func TestReadRangeOfOneThatHalts(t *testing.T) {
	for _, drip := range []time.Duration{0, testHedge / 8} {
		inBubble(t, 2, 5, 0, func(b *bench) {
			b.f.set(halting, 0)
			b.f.drip = drip
			got, err := b.ReadRange(b.Context(), b.pack.PackRef, 0, 100_000)
			if err != nil || !bytes.Equal(got, b.pack.bytes[:100_000]) {
				b.Errorf("it was not read: %v", err)
			}
			if took := time.Since(b.begin); took > (mostFlow+1)*testHedge {
				b.Errorf("took %v", took)
			}
		})
	}
}

func TestReadRangeWithSeveralSlow(t *testing.T) {
	inBubble(t, 3, 6, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2)
		b.reads(0, 1000)
		b.took(2 * testHedge) // k others, two of them slow: then the rest
	})
}

func TestReadRangeTakesTheSlowOneIfItIsFirst(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3)
		time.AfterFunc(time.Second, func() { b.f.set(right, 0); close(b.f.released) })
		b.reads(0, 1000)
		b.took(time.Second)
	})
}

// A holder that others had to be asked beside is asked last for a while.
func TestReadRangeShunsTheSlowOne(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0)
		b.reads(0, 1000)
		b.reads(0, 1000)
		b.took(testHedge)
		if b.Alive(peerKey(0)) || b.peer(0).Strikes > 0 {
			t.Error("the slow holder is to be shunned, not struck")
		}
	})
}

func TestReadRangeWithTooFew(t *testing.T) {
	for _, c := range []struct {
		mood mood
		want error
		says string
	}{
		{gone, ErrUnreachable, "3 of 5 shards are needed, 2 came, 0 are lost, 3 are out of reach"},
		{busy, ErrUnreachable, "3 of 5 shards are needed, 2 came, 0 are lost, 3 are out of reach"},
		{absent, ErrLost, "3 of 5 shards are needed, 2 came, 3 are lost, 0 are out of reach"},
		{lying, ErrLost, "3 of 5 shards are needed, 2 came, 3 are lost, 0 are out of reach"},
	} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			b.f.set(c.mood, 0, 1, 3)
			err := b.fails(c.want)
			if !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v: %q does not say %q", c.mood, err, c.says)
			}
			b.took(0)
		})
	}
}

// So long as k may be left with those that do not answer, nothing is lost.
func TestReadRangeIsNotLostWhileSomeAreAway(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(absent, 0, 1)
		b.f.set(gone, 2)
		b.fails(ErrUnreachable)
		b.f.set(absent, 2)
		b.fails(ErrLost)
	})
}

// Nor is a pack of which not even the manifest is known; who has a shard has that, too.
func TestManifestIsNotLostWhileSomeAreAway(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.pack.Manifest = nil
		for _, c := range []struct {
			absent, gone []int
			want         error
		}{
			{[]int{0, 1}, []int{2, 3, 4}, ErrUnreachable},
			{[]int{0, 1, 2}, []int{3, 4}, ErrLost},
			{[]int{0, 1, 2, 3, 4}, nil, ErrLost},
			{nil, []int{0, 1, 2, 3, 4}, ErrUnreachable},
		} {
			b.f.set(absent, c.absent...)
			b.f.set(gone, c.gone...)
			if _, err := b.ReadRange(b.Context(), b.pack.PackRef, 0, 1000); !errors.Is(err, c.want) {
				t.Errorf("%v lack it, %v are away: %v", c.absent, c.gone, err)
			}
		}
	})
}

// A slot of two holders is missing only when both say so, in whichever order
// they answer.
func TestReadRangeIsNotLostWhileTheOtherHolderIsAway(t *testing.T) {
	for _, table := range []bool{false, true} {
		inBubble(t, 3, 4, 2, func(b *bench) {
			b.f.holdAt(b.pack, 5, 1, b.pack.shards[1])
			b.f.found[b.pack.Group] = []group.PeerKey{peerKey(5)}
			if table { // now the one that is away comes first
				b.f.found[b.pack.Group][0], b.pack.Slots[1] = peerKey(1), peerKey(5)
			}
			b.search()
			b.f.set(absent, 0, 1)
			b.f.set(gone, 5)
			b.fails(ErrUnreachable)
		})
	}
}

// search waits until all were asked who are said to hold the group.
func (b *bench) search() {
	sr := b.look(b.pack.Group)
	defer sr.leave()
	for {
		_, news, done := sr.holders(0)
		if done {
			return
		}
		<-news
	}
}

// A swarm that has gone silent is waited for no longer than Silence after the
// last that came of it, in whichever stage of a read.
func TestReadEndsWithSilence(t *testing.T) {
	for _, manifest := range []bool{true, false} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			b.f.set(slow, 0, 1, 2, 3, 4)
			if !manifest {
				b.pack.Manifest = nil
			}
			err := b.fails(ErrUnreachable)
			if want := "3 of 5 shards are needed, 0 came, 0 are lost, 5 are out of reach"; !strings.Contains(err.Error(), want) {
				t.Errorf("%q does not say %q", err, want)
			}
			_, _, err = b.ReadShards(b.Context(), b.pack.PackRef)
			if missing, ok := errors.AsType[*MissingError](err); !ok || missing.Unreachable != 5 {
				t.Errorf("whole shards: %v", err)
			}
			if took := time.Since(b.begin); manifest && took != 11*time.Second || took > 20*time.Second {
				t.Errorf("took %v", took) // the second read knows of the first
			}
			b.sleep(10 * time.Second)
			begin := time.Now()
			b.fails(ErrUnreachable)
			if took := time.Since(begin); manifest && took != 10*time.Second || took > 10*time.Second {
				t.Errorf("ten seconds later it took %v", took)
			}
		})
	}
}

// What comes puts the end off, also the bytes of an answer that is not complete.
func TestReadGoesOnWhileSomethingComes(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3, 4)
		b.f.drip = 9 * time.Second
		b.fails(ErrUnreachable)
		b.took(time.Minute + slowTime(b.pack.Class.Size())) // which is the most that a range may take
	})
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3, 4)
		time.AfterFunc(9*time.Second, func() { b.f.set(right, 4) })
		time.AfterFunc(18*time.Second, func() { close(b.f.released) })
		b.f.drip = 9 * time.Second
		b.reads(0, 1000)
	})
}

func TestReadEndsAtTheDeadlineOfTheCaller(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1, 2, 3)
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		_, err := b.ReadRange(ctx, b.pack.PackRef, 0, b.pack.Class.Size())
		_, _, err2 := b.ReadShards(ctx, b.pack.PackRef)
		for _, err := range []error{err, err2} {
			if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) {
				t.Errorf("%v, want the context's error", err)
			}
		}
		b.took(time.Second)
	})
}

func TestReadRangeEndsWithItsContext(t *testing.T) {
	for _, ask := range []func(ctx context.Context, b *bench) error{
		func(ctx context.Context, b *bench) error {
			_, err := b.ReadRange(ctx, b.pack.PackRef, 0, b.pack.Class.Size())
			return err
		},
		func(ctx context.Context, b *bench) error {
			_, _, err := b.ReadShards(ctx, b.pack.PackRef)
			return err
		},
		func(ctx context.Context, b *bench) error {
			ref := b.pack.PackRef
			ref.Manifest, ref.Slots = nil, nil
			b.f.found[ref.Group] = b.pack.Slots
			_, err := b.ReadRange(ctx, ref, 0, 1)
			return err
		},
		func(ctx context.Context, b *bench) error {
			_, err := b.Store(ctx, b.pack.group(), b.pack.lease, b.pack.Manifest, b.pack.shards, 3)
			return err
		},
		func(ctx context.Context, b *bench) error {
			_, err := b.Lease(ctx, b.pack.group(), b.pack.lease)
			return err
		},
	} {
		inBubble(t, 3, 5, 0, func(b *bench) {
			b.f.set(slow, 0, 1, 2, 3, 4)
			ctx, cancel := context.WithCancel(b.Context())
			time.AfterFunc(time.Second, cancel)
			if err := ask(ctx, b); !errors.Is(err, context.Canceled) {
				t.Errorf("%v, want the context's error", err)
			}
			b.took(time.Second)
			if got := b.peer(0); got.Strikes != 0 || !b.Alive(got.Key) {
				t.Error("a holder was blamed for what the caller ended")
			}
		})
	}
}

func TestReadRangeFindsHolders(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.found[b.pack.Group] = slices.Clone(b.pack.Slots)
		b.f.set(gone, 1)
		ref := b.pack.PackRef
		ref.Slots, ref.Manifest = nil, nil
		for range 2 {
			got, err := b.ReadRange(b.Context(), ref, 0, ref.Class.Size())
			if err != nil || !bytes.Equal(got, b.pack.bytes) {
				t.Fatal(err)
			}
		}
		b.search()
		finds := b.f.finds
		again := func() {
			if _, err := b.ReadRange(b.Context(), ref, 0, 1); err != nil {
				t.Fatal(err)
			}
		}
		if again(); b.f.finds != finds {
			t.Error("the finder was asked for what had just been found")
		}
		b.sleep(foundFor)
		if again(); b.f.finds != finds+1 {
			t.Errorf("a minute later the finder was asked %d times, want once", b.f.finds-finds)
		}
	})
}

// Who is found is asked though the directory goes on waiting for somebody who is silent.
func TestReadRangeBeforeAllAreNamed(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.found[b.pack.Group], b.f.searching = slices.Clone(b.pack.Slots), true
		ref := b.pack.PackRef
		ref.Slots, ref.Manifest = nil, nil
		got, err := b.ReadRange(b.Context(), ref, 0, ref.Class.Size())
		if err != nil || !bytes.Equal(got, b.pack.bytes) {
			t.Fatal(err)
		}
		b.took(0)
	})
}

// On a bare machine, thousands of made-up peers say that they hold a group; they
// do not answer, or with a byte a second, have nothing, or give what is wrong. The few that do hold it
// are found among them in time.
func TestReadRangeAmongMadeUpHolders(t *testing.T) {
	const fakes = 2000
	for seed, as := range [][]mood{{slow}, {gone}, {absent}, {lying}, {slow, gone, absent, lying}, {slow, slow}} {
		t.Run(fmt.Sprint(as), func(t *testing.T) {
			inBubble(t, 4, 9, 0, func(b *bench) {
				if len(as) == 2 {
					b.f.drip = time.Second
				}
				rnd := rand.New(rand.NewPCG(1, uint64(seed)))
				named := slices.Clone(b.pack.Slots)
				for i := range fakes {
					b.f.claim(b.pack, 100+i, uint8(rnd.IntN(9)), as[rnd.IntN(len(as))])
					named = append(named, peerKey(100+i))
				}
				rnd.Shuffle(len(named), func(i, j int) { named[i], named[j] = named[j], named[i] })
				b.f.found[b.pack.Group] = named
				b.c.Peers = peers.New(peers.Options{}) // nobody is known
				ref := b.pack.PackRef
				ref.Slots, ref.Manifest = nil, nil
				got, err := b.ReadRange(b.Context(), ref, 0, ref.Class.Size())
				if err != nil || !bytes.Equal(got, b.pack.bytes) {
					t.Errorf("after %v: %v", time.Since(b.begin), err)
				}
				t.Logf("took %v; %d were asked for a statement, %d for a range", time.Since(b.begin),
					b.f.allCalls(wire.KindStatement), b.f.allCalls(wire.KindGet))
			})
		})
	}
}

// Searches for several groups share the room for those who are asked, and all get on.
func TestSearchesShareTheRoom(t *testing.T) {
	inBubble(t, 2, 5, 0, func(b *bench) {
		const groups, each = 4, 300
		for i := range each {
			b.f.claim(b.pack, 100+2*i+1, 0, slow)
		}
		for g := range groups {
			for i := range each {
				b.f.found[group.ID{byte(g)}] = append(b.f.found[group.ID{byte(g)}], peerKey(100+2*i+1))
			}
		}
		var all []*search
		for g := range groups {
			all = append(all, b.look(group.ID{byte(g)}))
		}
		for range 10 {
			synctest.Wait()
			b.f.with(func() {
				if b.f.waits > askedAtOnce {
					b.Errorf("%d are asked at once", b.f.waits)
				}
			})
			b.sleep(time.Second)
		}
		for _, sr := range all {
			h, _, _ := sr.holders(0)
			if h.silent < askedAtOnce*10/2/groups/4 {
				b.Errorf("a search has asked %d", h.silent)
			}
			sr.leave()
		}
	})
}

// Those that are known to be peers are asked before those that are only named.
func TestKnownPeersAreAskedFirst(t *testing.T) {
	inBubble(t, 2, 4, 0, func(b *bench) {
		for i := 101; i < 4101; i += 2 { // those do not answer at all
			b.f.claim(b.pack, i, 0, slow)
			b.f.found[b.pack.Group] = append(b.f.found[b.pack.Group], peerKey(i))
		}
		b.f.found[b.pack.Group] = append(b.f.found[b.pack.Group], b.pack.Slots...)
		ref := b.pack.PackRef
		ref.Slots, ref.Manifest = nil, nil
		if _, err := b.ReadRange(b.Context(), ref, 0, ref.Class.Size()); err != nil {
			t.Error(err)
		}
		b.took(0)
	})
}

// The slots have new holders that the table does not know.
func TestReadRangeWithAnOutdatedTable(t *testing.T) {
	inBubble(t, 3, 5, 3, func(b *bench) {
		b.f.set(gone, 0, 1, 2)
		for i := range 3 {
			b.f.holdAt(b.pack, 5+i, uint8(i), b.pack.shards[i])
			b.f.found[b.pack.Group] = append(b.f.found[b.pack.Group], peerKey(5+i))
		}
		b.reads(0, b.pack.Class.Size())
	})
}

func TestReadRangeOfAnUnknownGroup(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		ref := b.pack.PackRef
		ref.Slots = nil
		for _, manifest := range [][]byte{nil, ref.Manifest} {
			ref.Manifest = manifest
			if _, err := b.ReadRange(b.Context(), ref, 0, 1); !errors.Is(err, ErrAbsent) {
				t.Errorf("with a finder that finds nobody: %v", err)
			}
		}
		b.c.Finder = nil
		if _, err := b.ReadRange(b.Context(), ref, 0, 1); !errors.Is(err, ErrAbsent) {
			t.Errorf("without a finder: %v", err)
		}
	})
}

// Those that are said to hold a group do not answer: it is not absent.
func TestReadRangeOfAGroupWhoseHoldersAreAway(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		ref := b.pack.PackRef
		ref.Slots = nil
		b.f.found[ref.Group] = b.pack.Slots
		b.f.set(gone, 0, 1, 2, 3, 4)
		if _, err := b.ReadRange(b.Context(), ref, 0, 1); !errors.Is(err, ErrUnreachable) || errors.Is(err, ErrAbsent) {
			t.Errorf("gone: %v", err)
		}
		b.f.set(absent, 0, 1, 2, 3, 4)
		if _, err := b.ReadRange(b.Context(), ref, 0, 1); !errors.Is(err, ErrAbsent) {
			t.Errorf("absent: %v", err)
		}
	})
}

func TestManifestsAreKept(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		second := makePack(t, testClass, 3, 5, 1)
		b.f.hold(second)
		b.f.set(gone, 0)
		for _, p := range []testPack{b.pack, second, b.pack} {
			ref := p.PackRef
			ref.Manifest = nil
			m, err := b.Manifest(b.Context(), ref)
			if err != nil || !slices.Equal(m.Roots, p.manifest.Roots) {
				t.Fatalf("manifest of pack %d: %v", p.Number, err)
			}
		}
		if n := b.f.allCalls(wire.KindManifests); n != 2 {
			t.Errorf("%d holders were asked for manifests, want the one that is gone and one more", n)
		}
	})
}

func TestManifestIsHedged(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(slow, 0, 1)
		ref := b.pack.PackRef
		ref.Manifest = nil
		if _, err := b.Manifest(b.Context(), ref); err != nil {
			t.Fatal(err)
		}
		b.took(2 * testHedge)
		b.f.set(gone, 0, 1, 2, 3, 4)
		ref.Number = 7
		if _, err := b.Manifest(b.Context(), ref); !errors.Is(err, ErrUnreachable) {
			t.Errorf("of nobody: %v", err)
		}
	})
}

// A holder gives manifests that are not those of the pack: others are asked.
func TestManifestOfAnotherPackIsNotTaken(t *testing.T) {
	other := makePack(t, testClass, 2, 5, 0) // the number of the pack, another coding
	moved := makePack(t, testClass, 3, 5, 9) // another number
	for name, word := range map[string][]byte{"coding": other.Manifest, "number": moved.Manifest, "form": []byte("manifest")} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, 3, 5, 0, func(b *bench) {
				liar := b.f.peers[peerKey(0)]
				second := makePack(t, testClass, 3, 5, 1)
				b.f.hold(second)
				liar.words[packKey{b.pack.Group, 0}] = word
				if name != "coding" {
					liar.words[packKey{b.pack.Group, 1}] = word
				}
				for _, p := range []testPack{b.pack, second} {
					ref := p.PackRef
					ref.Manifest = nil
					m, err := b.Manifest(b.Context(), ref)
					if err != nil || !slices.Equal(m.Roots, p.manifest.Roots) {
						t.Fatalf("manifest of pack %d: %v", p.Number, err)
					}
				}
				if lied := name != "coding"; lied != (b.peer(0).Strikes > 0) {
					t.Errorf("%d strikes", b.peer(0).Strikes)
				}
			})
		})
	}
}

func TestManifestFromTheTableIsChecked(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		ref := b.pack.PackRef
		ref.Number = 1
		if _, err := b.Manifest(b.Context(), ref); !errors.Is(err, client.ErrLied) {
			t.Errorf("manifest of another pack: %v", err)
		}
		ref.Manifest = bytes.Clone(ref.Manifest)
		ref.Manifest[len(ref.Manifest)-1] ^= 1
		if _, err := b.Manifest(b.Context(), ref); err == nil {
			t.Error("a manifest with a bad signature was taken")
		}
	})
}

func TestReadShardsAndRebuild(t *testing.T) {
	for _, k := range []int{1, 3, 4} {
		inBubble(t, k, k+3, 0, func(b *bench) {
			b.f.set(gone, 0)
			b.f.set(absent, 1)
			b.f.set(lying, k)
			_, shards, err := b.ReadShards(b.Context(), b.pack.PackRef)
			if err != nil {
				t.Fatal(err)
			}
			have := 0
			for i, shard := range shards {
				if shard != nil {
					have++
					if !bytes.Equal(shard, b.pack.shards[i]) {
						t.Errorf("shard %d is wrong", i)
					}
				}
			}
			if have != k {
				t.Errorf("%d shards, want %d", have, k)
			}
			for i := range b.pack.shards {
				shard, err := b.Rebuild(b.Context(), b.pack.PackRef, uint8(i))
				if err != nil || !bytes.Equal(shard, b.pack.shards[i]) {
					t.Errorf("rebuilding shard %d: %v", i, err)
				}
			}
		})
	}
}

func TestReadShardsWithTooFew(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(absent, 0, 1, 2)
		if _, err := b.Rebuild(b.Context(), b.pack.PackRef, 0); !errors.Is(err, ErrLost) {
			t.Errorf("%v, want ErrLost", err)
		}
		b.f.set(gone, 0, 1, 2)
		if _, _, err := b.ReadShards(b.Context(), b.pack.PackRef); !errors.Is(err, ErrUnreachable) {
			t.Errorf("%v, want ErrUnreachable", err)
		}
	})
}

// The table is outdated: rebuilding finds the new holders as reading does.
func TestReadShardsFindsHolders(t *testing.T) {
	inBubble(t, 3, 5, 3, func(b *bench) {
		b.f.set(gone, 0, 1, 2)
		for i := range 3 {
			b.f.holdAt(b.pack, 5+i, uint8(i), b.pack.shards[i])
			b.f.found[b.pack.Group] = append(b.f.found[b.pack.Group], peerKey(5+i))
		}
		if _, err := b.Rebuild(b.Context(), b.pack.PackRef, 0); err != nil {
			t.Error(err)
		}
	})
}

func TestFailingHoldersAreShunned(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		b.f.set(gone, 0)
		b.f.set(lying, 1)
		b.reads(0, b.pack.Class.Size())
		asked := b.f.calls(wire.KindGet, 0)
		b.reads(0, b.pack.Class.Size())
		if n := b.f.calls(wire.KindGet, 0); n != asked {
			t.Errorf("the holder that is gone was asked %d times more", n-asked)
		}
		if b.Alive(peerKey(0)) || b.Alive(peerKey(1)) || !b.Alive(peerKey(2)) {
			t.Error("shunned are not those that failed")
		}
		if b.peer(1).Strikes == 0 || b.peer(0).Strikes != 0 {
			t.Errorf("strikes: %d of the liar, %d of the one that is gone", b.peer(1).Strikes, b.peer(0).Strikes)
		}
		b.f.set(right, 0, 1)
		b.sleep(5 * time.Minute)
		b.reads(0, b.pack.Class.Size())
		if n := b.f.calls(wire.KindGet, 0); n != asked+1 || !b.Alive(peerKey(0)) {
			t.Errorf("later it was asked %d times, want once", n-asked)
		}
	})
}

// Being shunned lasts longer each time, and is not forgotten because a caller
// goes away.
func TestShunGrows(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		p := peerKey(0)
		for i, want := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
			b.note(p, client.ErrUnreachable, 0)
			b.note(p, context.Canceled, 0)
			b.sleep(want*time.Second - 1)
			if b.Alive(p) {
				t.Errorf("failure %d: forgotten too early", i)
			}
			b.sleep(1)
			if !b.Alive(p) {
				t.Errorf("failure %d: still shunned after %v s", i, int(want))
			}
		}
		b.note(p, nil, time.Millisecond)
		b.note(p, client.ErrUnreachable, 0)
		b.sleep(firstShun)
		if !b.Alive(p) {
			t.Error("an answer did not end the count")
		}
		synctest.Wait()
	})
}

// Of peers that are not there, as anybody may have them named, no more are remembered than
// there is room for; of those that failed last, all.
func TestShunsAreBounded(t *testing.T) {
	s, now := shuns{}, time.Unix(1, 0)
	named := func(i int) group.PeerKey { return group.PeerKey{byte(i), byte(i >> 8), byte(i >> 16), 1} }
	for i := range 3 * maxShuns {
		now = now.Add(10 * time.Millisecond)
		s.again(named(i), now, time.Minute)
		if len(s) > maxShuns || i > 100 && !s.has(named(i-100), now) {
			t.Fatalf("after %d of them: %d are remembered, the hundredth before the last: %v", i, len(s), s.has(named(i-100), now))
		}
	}
}

// Who takes no more groups gets none for a while; but has room as before, and is
// asked as before.
func TestCrowdedIsNotFull(t *testing.T) {
	inBubble(t, 3, 5, 0, func(b *bench) {
		p, room := peerKey(0), b.peer(0).Free
		b.note(p, client.ErrCrowded, 0)
		if !b.Crowded(p) || b.Crowded(peerKey(1)) || !b.Alive(p) || b.peer(0).Free != room || room == 0 {
			t.Errorf("crowded %v, alive %v, %d bytes free", b.Crowded(p), b.Alive(p), b.peer(0).Free)
		}
		b.sleep(firstShun)
		if b.Crowded(p) {
			t.Error("it is never asked again")
		}
	})
}

// A piece from its own holder, in a large group: what reading costs beside the
// holder's answer.
func BenchmarkReadPiece(b *testing.B) {
	pack := makePack(b, 22, 32, 55, 0)
	f := newSwarmOf(55)
	f.hold(pack)
	s := New(Config{Holders: f, Finder: f, Peers: peers.New(peers.Options{})})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ReadRange(b.Context(), pack.PackRef, 0, erasure.Unit); err != nil {
			b.Fatal(err)
		}
	}
}
