package swarm

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/zeebo/blake3"

	"skep/chunker/group"
	"skep/net/peers"
)

// Keepers is how keepers of slot records are asked; *client.Client is one.
type Keepers interface {
	PutRecord(ctx context.Context, p group.PeerKey, record []byte) error
	GetRecord(ctx context.Context, p group.PeerKey, key group.SlotKey) (r group.SlotRecord, word []byte, err error)
}

// RecordDirectory is where slot records are found by their key alone; net/dht
// is one.
type RecordDirectory interface {
	PutRecord(ctx context.Context, word []byte) error
	GetRecord(ctx context.Context, key group.SlotKey) ([]byte, error)
}

// Records puts and finds the copies of a record that lie under several slot
// keys.
type Records struct {
	Keepers   Keepers
	Directory RecordDirectory
	Peers     *peers.Directory
	Timeout   time.Duration // of one copy; 0 is 20 s
}

const (
	keepersEach = 2  // keepers of one copy
	askedEach   = 32 // peers asked for a copy beside the directory
)

// ErrNotKept says that too few copies of a record found a keeper.
var ErrNotKept = errors.New("too few copies of the record are kept")

func (r *Records) timeout() time.Duration {
	if r.Timeout == 0 {
		return 20 * time.Second
	}
	return r.Timeout
}

// Put hands each copy to keepers, the same ones for the same slot as long as
// they answer, and to the directory. It succeeds when most copies have a
// keeper.
func (r *Records) Put(ctx context.Context, words [][]byte) error {
	errs := make([]error, len(words))
	var wg sync.WaitGroup
	for i, w := range words {
		wg.Go(func() { errs[i] = r.putOne(ctx, w) })
	}
	wg.Wait()
	kept := 0
	for _, err := range errs {
		if err == nil {
			kept++
		}
	}
	if kept*2 <= len(words) {
		return fmt.Errorf("%w: %d of %d (%w)", ErrNotKept, kept, len(words), errors.Join(errs...))
	}
	return nil
}

func (r *Records) putOne(ctx context.Context, word []byte) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	rec, err := group.ParseSlotRecord(word)
	if err != nil {
		return err
	}
	var wg sync.WaitGroup
	if r.Directory != nil {
		wg.Go(func() { _ = r.Directory.PutRecord(ctx, word) }) // keepers put it again
	}
	kept := 0
	var last error
	for _, p := range r.rank(rec.Key()) {
		if kept == keepersEach || ctx.Err() != nil {
			break
		}
		if err := r.putTo(ctx, p, word); err != nil {
			last = err
			continue
		}
		kept++
	}
	wg.Wait()
	if kept == 0 {
		return fmt.Errorf("no keeper: %w", orNone(last))
	}
	return nil
}

// putTo hands a copy to one keeper, which may not use up all of the time.
func (r *Records) putTo(ctx context.Context, p group.PeerKey, word []byte) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout()/4)
	defer cancel()
	return r.Keepers.PutRecord(ctx, p, word)
}

// rank orders the peers for a slot key by rendezvous hashing (Thaler,
// Ravishankar 1998), those that answer first.
func (r *Records) rank(key group.SlotKey) []group.PeerKey {
	type ranked struct {
		peer  group.PeerKey
		away  bool
		score [32]byte
	}
	var all []ranked
	for _, p := range r.Peers.List() {
		if p.HelloAt.IsZero() || p.Barred {
			continue
		}
		all = append(all, ranked{p.Key, p.State == peers.Dead || p.State == peers.Suspect,
			blake3.Sum256(append(key[:], p.Key[:]...))})
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(rank(a.away)-rank(b.away), bytes.Compare(a.score[:], b.score[:]))
	})
	out := make([]group.PeerKey, len(all))
	for i, a := range all {
		out[i] = a.peer
	}
	return out
}

// Get returns all copies that are found under these keys, by the directory and
// by asking the peers that would keep them. The copies are not opened here.
func (r *Records) Get(ctx context.Context, keys []group.SlotKey) [][]byte {
	var mu sync.Mutex // guards out
	var out [][]byte
	add := func(word []byte) {
		mu.Lock()
		defer mu.Unlock()
		out = append(out, word)
	}
	var wg sync.WaitGroup
	for _, k := range keys {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.timeout())
			defer cancel()
			if r.Directory != nil {
				if word, err := r.Directory.GetRecord(ctx, k); err == nil {
					add(word)
				}
			}
		})
		wg.Go(func() { r.askKeepers(ctx, k, add) })
	}
	wg.Wait()
	return out
}

func (r *Records) askKeepers(ctx context.Context, k group.SlotKey, add func([]byte)) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	order := r.rank(k)
	var wg sync.WaitGroup
	for _, p := range order[:min(askedEach, len(order))] {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.timeout()/4)
			defer cancel()
			if _, word, err := r.Keepers.GetRecord(ctx, p, k); err == nil {
				add(word)
			}
		})
	}
	wg.Wait()
}
