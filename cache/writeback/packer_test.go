package writeback

import (
	"crypto/rand"
	"errors"
	"sync"
	"testing"

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
