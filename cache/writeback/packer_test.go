package writeback

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"skep/cache/blocks"
	"skep/cache/state"
	"skep/chunker/block"
	"skep/chunker/dag"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/pack"
	"skep/chunker/secret"
)

// What is larger than a pack of its kind is refused, not tried for ever.
func TestBlockLargerThanAPack(t *testing.T) {
	const class = 16
	p := newPacker(t.Context(), &Engine{cfg: Config{ContentClass: class}})
	err := p.add(t.Context(), block.Sealed{Link: link.Link{Codec: link.Raw}, Ciphertext: make([]byte, 1<<class)})
	if !errors.Is(err, pack.ErrFull) {
		t.Errorf("got %v", err)
	}
}

// Blocks of which the tag is not known, as pieces of an index that another device wrote,
// are moved like all others.
func TestBlocksWithoutATagAreMoved(t *testing.T) {
	p := newMover(t.Context(), &Engine{}, false)
	for i := range 3 {
		l := link.Link{Codec: link.CBOR, Hash: link.Hash{byte(i)}}
		if err := p.add(t.Context(), block.Sealed{Link: l, Ciphertext: []byte{byte(i)}}); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(p.open[group.Metadata].b.Entries()); n != 3 {
		t.Errorf("%d of 3 blocks are moved", n)
	}
}

// Whoever stores the same chunks at the same time gets the same links, and each
// chunk is in a pack once, where it can be read at once.
func TestChunkSealedByMany(t *testing.T) {
	st, err := state.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	e := &Engine{pace: newPace(), table: blocks.New(st), sealer: block.NewSealer(secret.Key{1}), cfg: Config{ContentClass: 24}}
	p := newPacker(t.Context(), e)
	const chunks, callers = 8, 6
	plain := make([]byte, chunks*dag.ChunkSize)
	_, _ = rand.Read(plain)
	chunk := func(i int) []byte { return plain[i*dag.ChunkSize : (i+1)*dag.ChunkSize] }
	var links [callers][chunks]link.Link
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range chunks {
				l, err := p.Put(t.Context(), link.Raw, chunk(i), nil)
				if err != nil {
					t.Error(err)
				}
				links[c][i] = l
			}
		})
	}
	wg.Wait()
	for c := range callers {
		if links[c] != links[0] {
			t.Errorf("caller %d got other links than caller 0", c)
		}
	}
	if n := len(p.open[group.Content].b.Entries()); n != chunks {
		t.Errorf("%d chunks take %d places", chunks, n)
	}
	for i, l := range links[0] {
		if got, err := p.Get(t.Context(), l); err != nil || string(got) != string(chunk(i)) {
			t.Errorf("chunk %d: %d bytes, %v", i, len(got), err)
		}
	}
}

// While a full pack waits to be sent, nobody begins another one, however many have
// blocks for it: each is memory.
func TestFullPackWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		e := &Engine{pace: newPace(), cfg: Config{ContentClass: 16}}
		p := newPacker(ctx, e)
		done, err := e.pace.alone(ctx) // another is on its way
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		var ended atomic.Int32
		add := func(i byte) error {
			s := block.Sealed{Link: link.Link{Codec: link.Raw, Hash: link.Hash{i}}, Tag: block.Tag{i}, Ciphertext: make([]byte, 40<<10)}
			return p.add(ctx, s)
		}
		if err := add(0); err != nil {
			t.Fatal(err)
		}
		first := p.open[group.Content]
		for i := range byte(4) {
			go func() {
				if err := add(i + 1); !errors.Is(err, context.Canceled) {
					t.Errorf("block %d: %v", i+1, err)
				}
				ended.Add(1)
			}()
		}
		synctest.Wait()
		p.mu.Lock()
		if p.open[group.Content] != first || len(p.fresh) != 1 {
			t.Errorf("another pack was begun, or %d blocks are in packs, want 1", len(p.fresh))
		}
		p.mu.Unlock()
		cancel()
		synctest.Wait()
		if n := ended.Load(); n != 4 {
			t.Errorf("%d of 4 gave up with the commit", n)
		}
	})
}
