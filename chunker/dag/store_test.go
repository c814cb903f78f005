package dag

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ipld/go-ipld-prime"

	"skep/chunker/block"
	"skep/chunker/link"
	"skep/chunker/secret"
)

// memStore is a Store in memory. It checks that the refs it is given are those
// that Refs finds.
type memStore struct {
	mu           sync.Mutex // guards all below
	blocks       map[link.Link][]byte
	gets, puts   int
	getB, putB   int                     // plaintext bytes
	fail         func(l link.Link) error // if set, may refuse a Get
	concurrently int                     // most Gets at a time
	getting      int
	onGet        func()
	trusting     bool // do not check refs: for benchmarks
}

func newStore() *memStore {
	return &memStore{blocks: make(map[link.Link][]byte)}
}

func (m *memStore) Get(ctx context.Context, l link.Link) ([]byte, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m.mu.Lock()
	ct, ok := m.blocks[l]
	m.gets++
	m.getting++
	m.concurrently = max(m.concurrently, m.getting)
	fail, onGet := m.fail, m.onGet
	m.mu.Unlock()
	defer func() { m.mu.Lock(); m.getting--; m.mu.Unlock() }()
	if onGet != nil {
		onGet()
	}
	if fail != nil {
		if err := fail(l); err != nil {
			return nil, err
		}
	}
	if !ok {
		return nil, fmt.Errorf("%v: not there", l)
	}
	plain, err := block.Open(l, ct, nil)
	m.mu.Lock()
	m.getB += len(plain)
	m.mu.Unlock()
	return plain, err
}

func (m *memStore) Put(ctx context.Context, codec uint64, plain []byte, refs []link.Link) (link.Link, error) {
	if !m.trusting {
		if err := m.checkRefs(codec, plain, refs); err != nil {
			return link.Link{}, err
		}
	}
	b, err := sealer.Seal(codec, plain, nil)
	if err != nil {
		return link.Link{}, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.puts++
	m.putB += len(plain)
	m.blocks[b.Link] = b.Ciphertext
	return b.Link, nil
}

func (m *memStore) checkRefs(codec uint64, plain []byte, refs []link.Link) error {
	want, err := Refs(codec, plain)
	if err != nil {
		return fmt.Errorf("put a block without readable refs: %w", err)
	}
	if !slices.Equal(want, refs) {
		return fmt.Errorf("refs are %v, want %v", refs, want)
	}
	for _, r := range refs {
		if !m.has(r) && r.Hash[0] != fakeLink {
			return fmt.Errorf("put a block before its child %v", r)
		}
	}
	return nil
}

var sealer = block.NewSealer(secret.Key{7})

// The first use of the compressor makes channels. It must not be in the bubble of
// one test, or no other can use them.
func init() {
	if _, err := sealer.Seal(link.Raw, make([]byte, 1000), nil); err != nil {
		panic(err)
	}
}

func (m *memStore) has(l link.Link) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, ok := m.blocks[l]
	return ok
}

func (m *memStore) resetCounts() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gets, m.puts, m.getB, m.putB = 0, 0, 0, 0
}

// fakeLink begins the hash of links that stand for content which is not stored.
const fakeLink = 0xee

// rawLink is the link of a chunk that is not stored.
func rawLink(n int) link.Link {
	l := link.Link{Codec: link.Raw, Key: secret.Key{1}}
	l.Hash[0] = fakeLink
	l.Hash[1], l.Hash[2], l.Hash[3], l.Hash[4] = byte(n), byte(n>>8), byte(n>>16), byte(n>>24)
	return l
}

// resolve is System.Resolve for tests.
func resolve(t testing.TB, s *System, l ipld.Link) link.Link {
	t.Helper()
	r, err := s.Resolve(l)
	if err != nil {
		t.Fatal(err)
	}
	return r
}
