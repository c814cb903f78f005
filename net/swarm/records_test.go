package swarm

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"skep/chunker/group"
	"skep/net/client"
	"skep/net/peers"
	"skep/net/wire"
)

// keepers keeps slot records in memory, by peer. It is the Keepers of Records.
type keepers struct {
	mu    sync.Mutex // guards all below
	gone  map[group.PeerKey]bool
	stuck map[group.PeerKey]bool
	sulky map[group.PeerKey]bool // refuse for no reason
	kept  map[group.PeerKey]map[group.SlotKey][]byte
	asked int
}

func (k *keepers) call(ctx context.Context, p group.PeerKey) error {
	k.mu.Lock()
	k.asked++
	gone, stuck := k.gone[p], k.stuck[p]
	k.mu.Unlock()
	if stuck {
		<-ctx.Done()
		return ctx.Err()
	}
	if gone {
		return client.ErrUnreachable
	}
	return ctx.Err()
}

func (k *keepers) PutRecord(ctx context.Context, p group.PeerKey, word []byte) error {
	if err := k.call(ctx, p); err != nil {
		return err
	}
	r, err := group.ParseSlotRecord(word)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.kept[p] == nil {
		k.kept[p] = map[group.SlotKey][]byte{}
	}
	if has, err := group.ParseSlotRecord(k.kept[p][r.Key()]); err == nil && !r.Replaces(&has) && !bytes.Equal(word, k.kept[p][r.Key()]) || k.sulky[p] {
		return client.ErrRefused
	}
	k.kept[p][r.Key()] = word
	return nil
}

func (k *keepers) GetRecord(ctx context.Context, p group.PeerKey, key group.SlotKey) (r group.SlotRecord, word []byte, err error) {
	if err := k.call(ctx, p); err != nil {
		return r, nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	word, ok := k.kept[p][key]
	if !ok {
		return r, nil, client.ErrAbsent
	}
	r, err = group.ParseSlotRecord(word)
	return r, word, err
}

// of lists the keepers of a record.
func (k *keepers) of(key group.SlotKey) []group.PeerKey {
	k.mu.Lock()
	defer k.mu.Unlock()
	var out []group.PeerKey
	for p, kept := range k.kept {
		if kept[key] != nil {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b group.PeerKey) int { return bytes.Compare(a[:], b[:]) })
	return out
}

// shelf is a RecordDirectory in memory.
type shelf struct {
	mu   sync.Mutex // guards kept
	kept map[group.SlotKey][]byte
	err  error
}

func (s *shelf) PutRecord(_ context.Context, word []byte) error {
	r, err := group.ParseSlotRecord(word)
	if err != nil || s.err != nil {
		return errors.Join(err, s.err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.kept[r.Key()] = word
	return nil
}

func (s *shelf) GetRecord(_ context.Context, key group.SlotKey) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if word, ok := s.kept[key]; ok && s.err == nil {
		return word, nil
	}
	return nil, errors.Join(s.err, errNone)
}

// library is Records with peers in memory.
type library struct {
	Records
	keepers *keepers
	shelf   *shelf
}

func newLibrary(n int) *library {
	l := &library{
		keepers: &keepers{gone: map[group.PeerKey]bool{}, stuck: map[group.PeerKey]bool{}, sulky: map[group.PeerKey]bool{}, kept: map[group.PeerKey]map[group.SlotKey][]byte{}},
		shelf:   &shelf{kept: map[group.SlotKey][]byte{}},
	}
	l.Records = Records{Keepers: l.keepers, Directory: l.shelf, Peers: peers.New(peers.Options{})}
	for i := range n {
		l.Peers.Said(peerKey(i), wire.Hello{Offered: 1, Free: 1})
	}
	return l
}

// copies returns n copies of a value under slot keys of their own.
func copies(n int) (words [][]byte, keys []group.SlotKey) { return numbered(n, 1, 1<<40, "") }

// numbered is copies of a value with a number and an end.
func numbered(n int, number uint64, until int64, value string) (words [][]byte, keys []group.SlotKey) {
	for i := range n {
		key := ed25519.NewKeyFromSeed(append(make([]byte, 31), byte(i+1)))
		r := group.SlotRecord{Number: number, Until: until, Value: append([]byte{byte(i)}, value...)}
		copy(r.Pub[:], key.Public().(ed25519.PublicKey))
		words = append(words, r.Sign(key))
		keys = append(keys, group.SlotKeyOf(key.Public().(ed25519.PublicKey)))
	}
	return words, keys
}

// distinct counts the different words in a list.
func distinct(words [][]byte) int {
	seen := map[string]bool{}
	for _, w := range words {
		seen[string(w)] = true
	}
	return len(seen)
}

func TestRecordsPutAndGet(t *testing.T) {
	l := newLibrary(20)
	words, keys := copies(4)
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	for i, k := range keys {
		if n := len(l.keepers.of(k)); n != keepersEach {
			t.Errorf("copy %d has %d keepers", i, n)
		}
	}
	if n := distinct(l.Get(t.Context(), keys).Words()); n != 4 {
		t.Errorf("%d copies found, want 4", n)
	}
	l.Directory = nil
	if n := distinct(l.Get(t.Context(), keys).Words()); n != 4 {
		t.Errorf("%d copies found without the directory, want 4", n)
	}
	l.Directory, l.Peers = l.shelf, peers.New(peers.Options{})
	if n := distinct(l.Get(t.Context(), keys).Words()); n != 4 {
		t.Errorf("%d copies found without keepers, want 4", n)
	}
	l.Directory = nil
	if got := l.Get(t.Context(), keys); len(got.Copies) > 0 || got.Heard {
		t.Errorf("%d copies found by nobody", len(got.Copies))
	}
}

// The same slot has the same keepers whoever asks, and others only in place of
// those that went.
func TestRecordsKeepersAreStable(t *testing.T) {
	l := newLibrary(40)
	words, keys := copies(8)
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	before := map[group.SlotKey][]group.PeerKey{}
	for _, k := range keys {
		before[k] = l.keepers.of(k)
	}
	away := before[keys[0]][0]
	l.keepers.gone[away] = true
	l.Peers.Judge(away, peers.Dead)
	clear(l.keepers.kept)
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		for _, p := range before[k] {
			if p != away && !slices.Contains(l.keepers.of(k), p) {
				t.Errorf("a keeper that is there was replaced")
			}
		}
		if n := len(l.keepers.of(k)); n != keepersEach {
			t.Errorf("%d keepers", n)
		}
	}
}

func TestRecordsRank(t *testing.T) {
	l := newLibrary(6)
	_, keys := copies(1)
	all := l.rank(keys[0])
	l.Peers.Strike(all[0])
	l.Peers.Judge(all[1], peers.Suspect)
	l.Peers.Judge(all[2], peers.Dead)
	l.Peers.Judge(all[3], peers.Alive)
	l.Peers.Heard(peerKey(100))
	for range missesAway {
		l.Peers.Missed(all[4])
	}
	l.Peers.Missed(all[5])
	want := []group.PeerKey{all[3], all[5], all[1], all[4]}
	if got := l.rank(keys[0]); !slices.Equal(got, want) {
		t.Errorf("rank %v, want %v", got, want)
	}
	for _, p := range all {
		l.Peers.Judge(p, peers.Dead)
	}
	want = []group.PeerKey{all[1], all[2], all[3], all[5], all[4]}
	if got := l.rank(keys[0]); !slices.Equal(got, want) {
		t.Errorf("all are dead: rank %v, want %v", got, want)
	}
}

// Peers that are gone, and never held anything, are brought nothing and waited for by
// nobody: not after days, and not after the first greetings without answer.
func TestRecordsWithPeersThatAreGone(t *testing.T) {
	for name, gone := range map[string]func(*library, []group.PeerKey){
		"for days": func(l *library, away []group.PeerKey) {
			for range 4 * 24 {
				time.Sleep(time.Hour)
				for i := range 8 {
					l.Peers.Seen(peerKey(i), "")
				}
				for _, p := range away {
					l.Peers.Missed(p)
				}
			}
		},
		"just now": func(l *library, away []group.PeerKey) {
			for _, p := range away {
				for range missesAway {
					l.Peers.Missed(p)
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLibrary(48)
				var away []group.PeerKey
				for i := 8; i < 48; i++ {
					l.keepers.stuck[peerKey(i)] = true
					away = append(away, peerKey(i))
				}
				gone(l, away)
				words, keys := copies(20)
				begin := time.Now()
				if _, err := l.Put(t.Context(), words); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took > 0 {
					t.Errorf("it took %v", took)
				}
				if f := l.Get(t.Context(), keys); name == "for days" && (!f.Heard || time.Since(begin) > 0) {
					t.Errorf("heard is %v after %v", f.Heard, time.Since(begin))
				}
			})
		})
	}
}

// Dead keepers are not waited for: others take their place.
func TestRecordsPutSkipsThoseThatAreGone(t *testing.T) {
	l := newLibrary(20) // nine of which are gone at most
	words, keys := copies(3)
	for _, k := range keys {
		for _, p := range l.rank(k)[:3] {
			l.keepers.gone[p] = true
		}
	}
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	for _, k := range keys {
		for _, p := range l.keepers.of(k) {
			if l.keepers.gone[p] {
				t.Error("one that is gone keeps a copy")
			}
		}
	}
}

func TestRecordsPutWithTooFewKeepers(t *testing.T) {
	l := newLibrary(5)
	words, _ := copies(3)
	for i := range 5 {
		l.keepers.gone[peerKey(i)] = true
	}
	if _, err := l.Put(t.Context(), words); !errors.Is(err, ErrNotKept) || !errors.Is(err, client.ErrUnreachable) {
		t.Errorf("nobody answers: %v", err)
	}
	l.Peers = peers.New(peers.Options{})
	if _, err := l.Put(t.Context(), words); !errors.Is(err, ErrNotKept) {
		t.Errorf("nobody is known: %v", err)
	}
}

// Half of the copies are too few, one more is enough; the directory alone is no
// keeper, and its failure is none of theirs.
func TestRecordsPutCountsCopies(t *testing.T) {
	for bad := range 4 {
		l := newLibrary(5)
		l.shelf.err = errNone
		words, _ := copies(4)
		for i := range bad {
			words[i] = []byte("no record")
		}
		if _, err := l.Put(t.Context(), words); errors.Is(err, ErrNotKept) != (bad >= 2) {
			t.Errorf("%d of 4 bad: %v", bad, err)
		}
	}
}

// One keeper that never answers takes neither the copy nor the time of others.
func TestRecordsWithAStuckKeeper(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(8)
		words, keys := copies(1)
		l.keepers.stuck[l.rank(keys[0])[0]] = true
		begin := time.Now()
		if _, err := l.Put(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		if n := len(l.keepers.of(keys[0])); n != keepersEach {
			t.Errorf("%d keepers", n)
		}
		if got := l.Get(t.Context(), keys); distinct(got.Words()) != 1 {
			t.Error("the copy was not found")
		}
		if took := time.Since(begin); took > 2*l.timeout() {
			t.Errorf("took %v", took)
		}
	})
}

// Who lingers does not wait for the few that never answer, once most have; for too few it
// waits as everybody does.
func TestRecordsLinger(t *testing.T) {
	const linger = 300 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(9)
		words, keys := copies(3)
		if _, err := l.Put(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		get := func(ctx context.Context) (Found, time.Duration) {
			begin := time.Now()
			f := l.Get(ctx, keys)
			return f, time.Since(begin)
		}
		silent := func(n int) {
			for i := range n {
				l.keepers.stuck[peerKey(i)] = true
			}
		}
		if f, took := get(Linger(t.Context(), linger)); !f.Heard || distinct(f.Words()) != 3 || took != 0 {
			t.Errorf("when all answer: %v, %d copies, after %v", f.Heard, distinct(f.Words()), took)
		}
		silent(2)
		if f, took := get(Linger(t.Context(), linger)); !f.Heard || distinct(f.Words()) != 3 || took != linger {
			t.Errorf("when two are silent: %v, %d copies, after %v", f.Heard, distinct(f.Words()), took)
		}
		if _, took := get(t.Context()); took < time.Second {
			t.Errorf("who does not linger has waited for %v", took)
		}
		l.Silent = func(p group.PeerKey) bool { return p == peerKey(0) || p == peerKey(1) }
		if f, took := get(Linger(t.Context(), linger)); !f.Heard || distinct(f.Words()) != 3 || took != 0 {
			t.Errorf("when it is known which two are silent: %v, %d copies, after %v", f.Heard, distinct(f.Words()), took)
		}
		silent(8)
		if f, took := get(Linger(t.Context(), linger)); f.Heard || took < time.Second {
			t.Errorf("when one answers: %v, after %v", f.Heard, took)
		}
	})
}

// farShelf is a directory that takes its time.
type farShelf struct {
	*shelf
	takes time.Duration
}

func (f farShelf) GetRecord(ctx context.Context, key group.SlotKey) ([]byte, error) {
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return f.shelf.GetRecord(ctx, key)
}

// Who searches knows some peers of a large swarm: the directory is waited for while those
// have few copies. It is not where these are all peers, nor by who lingers: he has been
// here for a while, and looks again.
func TestRecordsSearch(t *testing.T) {
	const linger, takes = 300 * time.Millisecond, 7 * time.Second
	for name, c := range map[string]struct {
		known, kept, silent int // peers, copies that they have, peers that do not answer
		ctx                 func(context.Context, time.Duration) context.Context
		copies              int // at least
		took                time.Duration
	}{
		"nothing is with those who are known":      {12, 0, 0, Search, 3, takes},
		"as many are known as are asked":           {askedEach, 0, 0, Search, 3, takes},
		"more are":                                 {40, 0, 0, Search, 3, takes},
		"one is silent":                            {40, 0, 1, Search, 3, takes},
		"they have less than most copies":          {12, 2, 0, Search, 3, takes},
		"they have most":                           {12, 3, 0, Search, 3, 0},
		"they have most, one is silent":            {12, 3, 1, Search, 3, linger},
		"more are known than are asked, have most": {40, 3, 0, Search, 3, linger},
		"in a small swarm":                         {knowsAll, 0, 0, Search, 0, 0},
		"in a small swarm, one is silent":          {knowsAll, 0, 1, Search, 0, linger},
		"by who lingers":                           {12, 0, 0, Linger, 0, 0},
		"by who lingers, and knows more":           {40, 0, 0, Linger, 0, linger},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLibrary(c.known)
			words, keys := copies(5)
			for i, w := range words {
				if err := l.shelf.PutRecord(t.Context(), w); err != nil {
					t.Fatal(err)
				}
				if i < c.kept {
					if err := l.keepers.PutRecord(t.Context(), l.rank(keys[i])[0], w); err != nil {
						t.Fatal(err)
					}
				}
			}
			for _, p := range l.rank(keys[0]) {
				if len(l.keepers.stuck) < c.silent && l.keepers.kept[p] == nil {
					l.keepers.stuck[p] = true
				}
			}
			l.Directory = farShelf{l.shelf, takes}
			begin := time.Now()
			f := l.Get(c.ctx(t.Context(), linger), keys)
			if slots, peers := f.Spread(1); slots > 0 && peers < 2 {
				t.Errorf("%s: copies under %d keys are taken for those of %d peers", name, slots, peers)
			}
			if took := time.Since(begin); distinct(f.Words()) < c.copies || took != c.took || !f.Heard {
				t.Errorf("%s: %d copies after %v", name, distinct(f.Words()), took)
			}
		})
	}
}

// PutRecord takes as long.
func (f farShelf) PutRecord(ctx context.Context, word []byte) error {
	select {
	case <-time.After(f.takes):
	case <-ctx.Done():
		return ctx.Err()
	}
	return f.shelf.PutRecord(ctx, word)
}

// on is how many records the directory has.
func (s *shelf) on() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.kept)
}

// Who puts records does not wait for a slow directory when keepers have them: it gets them
// all the same, until Records are closed.
func TestRecordsPutLeavesTheDirectoryBehind(t *testing.T) {
	const linger, takes = 300 * time.Millisecond, 15 * time.Second
	for name, c := range map[string]struct {
		keepers, puts int
		ctx           func(context.Context) context.Context
		took          time.Duration // of each put
		then, later   int           // on the shelf after that, and when the directory has had its time
	}{
		"with keepers":      {8, 1, func(ctx context.Context) context.Context { return ctx }, directoryPatience, 0, 5},
		"with one":          {1, 1, func(ctx context.Context) context.Context { return ctx }, directoryPatience, 0, 5},
		"without":           {0, 1, func(ctx context.Context) context.Context { return ctx }, takes, 5, 5},
		"by who lingers":    {8, 1, func(ctx context.Context) context.Context { return Linger(ctx, linger) }, linger, 0, 5},
		"more than go on":   {8, mostBehind/5 + 3, func(ctx context.Context) context.Context { return Linger(ctx, 0) }, 0, 0, mostBehind},
		"without, lingered": {0, 1, func(ctx context.Context) context.Context { return Linger(ctx, linger) }, takes, 5, 5},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := newLibrary(c.keepers)
			l.Directory = farShelf{l.shelf, takes}
			words, _ := copies(5 * c.puts)
			ctx, cancel := context.WithCancel(t.Context())
			for i := range c.puts {
				begin := time.Now()
				if _, err := l.Put(c.ctx(ctx), words[5*i:5*i+5]); (err == nil) != (c.keepers > 0) || time.Since(begin) != c.took {
					t.Errorf("%s: %v after %v", name, err, time.Since(begin))
				}
			}
			cancel() // as a call ends that has put them
			if n := l.shelf.on(); n != c.then {
				t.Errorf("%s: %d records are in the directory at once", name, n)
			}
			time.Sleep(takes)
			synctest.Wait()
			if n := l.shelf.on(); n != c.later {
				t.Errorf("%s: %d records are in the directory", name, n)
			}
			l.Close()
		})
	}
}

// Whoever closes Records ends what goes on, and from then on nothing does.
func TestRecordsClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(8)
		l.Directory = farShelf{l.shelf, time.Hour}
		l.Timeout = 2 * time.Hour
		words, _ := copies(5)
		begin := time.Now()
		for range 2 {
			if _, err := l.Put(t.Context(), words); err != nil {
				t.Error(err)
			}
			l.Close()
		}
		if took := time.Since(begin); took != 2*directoryPatience || l.shelf.on() > 0 {
			t.Errorf("it took %v, %d records are in the directory", took, l.shelf.on())
		}
	})
}

// lateKeepers take their time for one key.
type lateKeepers struct {
	*keepers
	key   group.SlotKey
	takes time.Duration
}

func (l lateKeepers) GetRecord(ctx context.Context, p group.PeerKey, key group.SlotKey) (group.SlotRecord, []byte, error) {
	if key == l.key {
		time.Sleep(l.takes)
	}
	return l.keepers.GetRecord(ctx, p, key)
}

// Copies under most keys are not enough if one of them has a higher number than the others,
// be it the last that is heard of.
func TestRecordsSearchForTheNewest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(12)
		older, keys := copies(5)
		newer, _ := numbered(5, 2, 1<<40, "")
		for i := range keys {
			word := older[i]
			if i == 0 {
				word = newer[i]
			}
			if err := errors.Join(l.keepers.PutRecord(t.Context(), l.rank(keys[i])[0], word), l.shelf.PutRecord(t.Context(), newer[i])); err != nil {
				t.Fatal(err)
			}
		}
		l.Directory, l.Keepers = farShelf{l.shelf, time.Second}, lateKeepers{l.keepers, keys[0], time.Millisecond}
		if slots, _ := l.Get(Search(t.Context(), time.Millisecond), keys).Spread(2); 2*slots <= 5 {
			t.Errorf("the newest is found under %d of 5", slots)
		}
	})
}

// A directory that comes to no end is not waited for for ever: then there may be a record.
func TestRecordsSearchEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(40)
		_, keys := copies(5)
		l.Directory = farShelf{l.shelf, time.Hour}
		begin := time.Now()
		f := l.Get(Search(t.Context(), time.Second), keys)
		if took := time.Since(begin); took != l.timeout() || len(f.Copies) > 0 || f.Heard {
			t.Errorf("%d copies after %v, heard %v", len(f.Copies), took, f.Heard)
		}
	})
}

// A keeper that says nothing is not waited for: the next one is tried beside it.
func TestRecordsPutBesideTheSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(8)
		words, keys := copies(1)
		order := l.rank(keys[0])
		l.keepers.stuck[order[0]], l.keepers.stuck[order[2]] = true, true
		begin := time.Now()
		if _, err := l.Put(t.Context(), words); err != nil {
			t.Fatal(err)
		}
		if kept := l.keepers.of(keys[0]); len(kept) != keepersEach || !slices.Contains(kept, order[1]) || !slices.Contains(kept, order[3]) {
			t.Errorf("%d keepers", len(kept))
		}
		if took := time.Since(begin); took != 2*putPatience { // the third says nothing either
			t.Errorf("took %v", took)
		}
	})
}

func TestRecordsEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLibrary(8)
		for i := range 8 {
			l.keepers.stuck[peerKey(i)] = true
		}
		l.Directory = nil
		words, keys := copies(3)
		for name, ask := range map[string]func(context.Context){
			"put": func(ctx context.Context) {
				if _, err := l.Put(ctx, words); !errors.Is(err, context.Canceled) {
					t.Errorf("put: %v", err)
				}
			},
			"get": func(ctx context.Context) { l.Get(ctx, keys) },
		} {
			ctx, cancel := context.WithCancel(t.Context())
			time.AfterFunc(time.Second, cancel)
			begin := time.Now()
			ask(ctx)
			if took := time.Since(begin); took != time.Second {
				t.Errorf("%s took %v", name, took)
			}
		}
	})
}

// A keeper that keeps what a record does not replace is no reason to go on to others,
// and what it keeps is told; the directory is left as it is.
func TestRecordsPutTellsWhatIsKeptInstead(t *testing.T) {
	now, keys := numbered(3, 5, 1<<40, "now")
	for name, c := range map[string]struct {
		number  uint64
		until   int64
		value   string
		instead bool
	}{
		"an older number":              {4, 1 << 41, "then", true},
		"the same number, other value": {5, 1 << 41, "else", true},
		"the same, not as long":        {5, 1 << 39, "now", true},
		"the same, longer":             {5, 1 << 41, "now", false},
		"a newer number":               {6, 1 << 39, "next", false},
	} {
		l := newLibrary(20)
		if instead, err := l.Put(t.Context(), now); err != nil || instead != nil {
			t.Fatal(err, len(instead))
		}
		words, _ := numbered(3, c.number, c.until, c.value)
		instead, err := l.Put(t.Context(), words)
		if err != nil || (distinct(instead) == 3) != c.instead || c.instead != (len(instead) == 3*keepersEach) {
			t.Errorf("%s: %v, %d are kept instead", name, err, len(instead))
		}
		for i, k := range keys {
			if n := len(l.keepers.of(k)); n != keepersEach {
				t.Errorf("%s: %d keepers", name, n)
			}
			if bytes.Equal(l.shelf.kept[k], now[i]) != c.instead {
				t.Errorf("%s: the directory has another one", name)
			}
		}
	}
}

// Who refuses a record and has nothing to show for it is passed over.
func TestRecordsPutPassesOverThoseThatRefuse(t *testing.T) {
	l := newLibrary(20)
	old, keys := numbered(1, 1, 1<<40, "old")
	if _, err := l.Put(t.Context(), old); err != nil {
		t.Fatal(err)
	}
	for _, p := range l.rank(keys[0])[:3] {
		l.keepers.sulky[p] = true
	}
	words, _ := numbered(1, 2, 1<<40, "new")
	if instead, err := l.Put(t.Context(), words); err != nil || instead != nil {
		t.Fatal(err, len(instead))
	}
	kept := 0
	for _, p := range l.keepers.of(keys[0]) {
		if bytes.Equal(l.keepers.kept[p][keys[0]], words[0]) {
			kept++
		}
	}
	if kept != keepersEach {
		t.Errorf("%d keepers", kept)
	}
}

// It is known whether as many answer as can be expected, whatever they say; and under
// how many keys, and with how many of them, a number is kept.
func TestRecordsTellWhoAnswered(t *testing.T) {
	l := newLibrary(9)
	words, keys := copies(5)
	if f := l.Get(t.Context(), keys); !f.Heard || len(f.Copies) > 0 {
		t.Errorf("of nothing: %v", f)
	}
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	kept := map[group.PeerKey]bool{}
	for _, k := range keys {
		for _, p := range l.keepers.of(k) {
			kept[p] = true
		}
	}
	f := l.Get(t.Context(), keys)
	if slots, peers := f.Spread(1); !f.Heard || slots != 5 || peers != len(kept) {
		t.Errorf("%d slots, %d of %d keepers, %v", slots, peers, len(kept), f.Heard)
	}
	if slots, peers := f.Spread(2); slots != 0 || peers != 0 {
		t.Errorf("a higher number: %d slots, %d keepers", slots, peers)
	}
	for i := range 6 { // of nine that answer seven times in ten
		l.keepers.gone[peerKey(i)] = true
	}
	if f := l.Get(t.Context(), keys); f.Heard {
		t.Error("six of nine said nothing")
	}
	for i := range 3 {
		l.keepers.gone[peerKey(i)] = false
	}
	if f := l.Get(t.Context(), keys); !f.Heard {
		t.Error("three of nine said nothing")
	}
}

// One peer that keeps all copies is one, and the directory is nobody beside it, in a
// swarm where all are asked; in a larger one it
// leads to others.
func TestRecordsOfASingleKeeper(t *testing.T) {
	l := newLibrary(1)
	words, keys := copies(5)
	if _, err := l.Put(t.Context(), words); err != nil {
		t.Fatal(err)
	}
	f := l.Get(t.Context(), keys)
	if slots, peers := f.Spread(1); slots != 5 || peers != 1 || distinct(f.Words()) != 5 || len(f.Copies) != 10 {
		t.Errorf("%d slots, %d keepers, %d copies", slots, peers, len(f.Copies))
	}
	large := newLibrary(askedEach + 1)
	large.shelf.kept = l.shelf.kept
	f = large.Get(t.Context(), keys)
	if slots, peers := f.Spread(1); slots != 5 || peers != 5 || len(f.Copies) != 5 {
		t.Errorf("%d slots, %d keepers, %d copies", slots, peers, len(f.Copies))
	}
}

func TestRecordsAreSpread(t *testing.T) {
	l := newLibrary(32)
	load := map[group.PeerKey]int{}
	for i := range 200 {
		k := group.SlotKey{byte(i), byte(i >> 8), 7}
		for _, p := range l.rank(k)[:keepersEach] {
			load[p]++
		}
	}
	if len(load) < 30 || slices.Max(slices.Collect(maps.Values(load))) > 40 {
		t.Error(fmt.Sprint("copies are not spread: ", load))
	}
}
