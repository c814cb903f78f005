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
	"skep/net/client"
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
// keys. Who has put some closes it.
type Records struct {
	Keepers   Keepers
	Directory RecordDirectory
	Peers     *peers.Directory
	// Silent reports whether a peer was silent when it was asked last: who lingers does not
	// wait for it. nil: nobody was.
	Silent  func(group.PeerKey) bool
	Timeout time.Duration // of one copy; 0 is 20 s

	behind behind
}

// Close ends what Put has left to itself, and waits for it.
func (r *Records) Close() { r.behind.close() }

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
// they answer, and then to the directory. It succeeds when most copies have a
// keeper; for the directory, which any peer in it can hold up, it waits two seconds then,
// and what is left of that goes on until it ends, or until Close. Keepers that keep another
// record of the slot, which this one does not replace, count as well: what they keep
// instead is returned, and then the directory is not told. It is signed, not opened: what
// it means its owner knows.
func (r *Records) Put(ctx context.Context, words [][]byte) (instead [][]byte, err error) {
	errs := make([]error, len(words))
	others := make([][][]byte, len(words))
	var wg sync.WaitGroup
	for i, w := range words {
		wg.Go(func() { others[i], errs[i] = r.putOne(ctx, w) })
	}
	wg.Wait()
	instead = slices.Concat(others...)
	kept := 0
	for _, err := range errs {
		if err == nil {
			kept++
		}
	}
	if kept*2 <= len(words) {
		return instead, fmt.Errorf("%w: %d of %d (%w)", ErrNotKept, kept, len(words), errors.Join(errs...))
	}
	return instead, nil
}

func (r *Records) putOne(ctx context.Context, word []byte) (instead [][]byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	rec, err := group.ParseSlotRecord(word)
	if err != nil {
		return nil, err
	}
	kept, instead, last := r.putToSome(ctx, &rec, word)
	if r.Directory != nil && len(instead) == 0 {
		r.behind.do(ctx, r.patience(ctx, kept), r.timeout(), func(ctx context.Context) {
			_ = r.Directory.PutRecord(ctx, word) // keepers put it again
		})
	}
	if kept == 0 {
		return nil, fmt.Errorf("no keeper: %w", orNone(last))
	}
	return instead, nil
}

// patience is how long Put waits for the directory when so many keep a copy.
func (r *Records) patience(ctx context.Context, kept int) time.Duration {
	d, lingers := ctx.Value(lingerKey{}).(time.Duration)
	switch {
	case kept == 0: // nobody else would put it there
		return r.timeout()
	case lingers:
		return d
	}
	return directoryPatience
}

// putPatience is how long one keeper is waited for before another is tried beside it.
const putPatience = time.Second

// putToSome hands a copy to the first that take it of those that rank highest. For one
// that says nothing the next one is tried, too. It returns how many took it, what they
// keep instead, and why one of the others did not.
func (r *Records) putToSome(ctx context.Context, rec *group.SlotRecord, word []byte) (kept int, instead [][]byte, last error) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	type end struct {
		instead []byte
		err     error
	}
	order := r.rank(rec.Key())
	ends := make(chan end, len(order))
	late := time.NewTicker(putPatience)
	defer late.Stop()
	for running, silent := 0, 0; ; {
		for ; running < keepersEach-kept+silent && len(order) > 0; running++ {
			p := order[0]
			order = order[1:]
			all.Go(func() {
				other, err := r.putTo(ctx, p, rec, word)
				ends <- end{other, err}
			})
		}
		if kept == keepersEach || running == 0 {
			return kept, instead, last
		}
		select {
		case e := <-ends:
			running--
			if e.err != nil {
				last = e.err
				break
			}
			kept++
			if e.instead != nil {
				instead = append(instead, e.instead)
			}
		case <-late.C:
			silent = running
		case <-ctx.Done():
			return kept, instead, cmp.Or(last, ctx.Err())
		}
		silent = min(silent, running)
	}
}

// putTo hands a copy to one keeper, which may not use up all of the time. One that
// refuses it, because of another record that it shows, keeps that instead.
func (r *Records) putTo(ctx context.Context, p group.PeerKey, rec *group.SlotRecord, word []byte) (instead []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout()/4)
	defer cancel()
	err = r.Keepers.PutRecord(ctx, p, word)
	if !errors.Is(err, client.ErrRefused) {
		return nil, err
	}
	has, other, gerr := r.Keepers.GetRecord(ctx, p, rec.Key())
	switch {
	case gerr != nil || rec.Replaces(&has):
		return nil, err // that is no reason
	case bytes.Equal(other, word):
		return nil, nil // it is this one
	}
	return other, nil
}

// missesAway is after how many questions in a row without an answer a keeper comes
// after others.
const missesAway = 3

// rank orders the peers for a slot key by rendezvous hashing (Thaler,
// Ravishankar 1998), those that answer, as far as is known, first. Those that are
// dead are none, unless all are.
func (r *Records) rank(key group.SlotKey) []group.PeerKey {
	order, _ := r.rankAll(key)
	return order
}

// rankAll is rank, and tells how likely each of them is to answer, as it did before.
func (r *Records) rankAll(key group.SlotKey) (out []group.PeerKey, likely []float64) {
	type ranked struct {
		peer   group.PeerKey
		state  peers.State
		away   bool
		likely float64
		score  [32]byte
	}
	var all []ranked
	for _, p := range r.Peers.List() {
		if p.HelloAt.IsZero() || p.Barred {
			continue
		}
		away := p.State == peers.Suspect || p.Misses >= missesAway
		all = append(all, ranked{p.Key, p.State, away, p.Availability, blake3.Sum256(append(key[:], p.Key[:]...))})
	}
	dead := func(a ranked) bool { return a.state == peers.Dead }
	if there := slices.DeleteFunc(slices.Clone(all), dead); len(there) > 0 {
		all = there
	}
	slices.SortFunc(all, func(a, b ranked) int {
		return cmp.Or(rank(a.away)-rank(b.away), bytes.Compare(a.score[:], b.score[:]))
	})
	for _, a := range all {
		out = append(out, a.peer)
		likely = append(likely, a.likely)
	}
	return out, likely
}

// Found is what was found under some slot keys. Nothing of it is opened.
type Found struct {
	Copies []Copy
	// Heard says that of the peers that would keep such a record more than half as many
	// answered, for each key, as their measured availability promises: what none of
	// them has may be taken not to be there; and for who searches, that the directory came
	// to its end, too.
	Heard bool
}

// Copy is one word that was found.
type Copy struct {
	From   group.PeerKey // who keeps it; in place of whoever the directory had it of, the slot key
	Number uint64
	Word   []byte
	key    group.SlotKey
	alike  bool // the directory has it of somebody who was asked, too
}

// Words are those of all copies.
func (f Found) Words() [][]byte {
	out := make([][]byte, len(f.Copies))
	for i, c := range f.Copies {
		out[i] = c.Word
	}
	return out
}

// Spread is under how many slot keys, and with how many peers as far as can be told,
// there is a record of this number or a higher one.
func (f Found) Spread(number uint64) (slots, peers int) {
	under, from := map[group.SlotKey]bool{}, map[group.PeerKey]bool{}
	for _, c := range f.Copies {
		if c.Number < number {
			continue
		}
		under[c.key] = true
		if !c.alike {
			from[c.From] = true
		}
	}
	return len(under), len(from)
}

// lingerKey is where a context has how long Get lingers.
type lingerKey struct{}

// Linger returns a context in which Get, and a Survey's Round, give all others as long
// again as it took until so many have answered as Heard asks for, and d at least, for a
// caller whom the few that are silent shall not stop. Put waits for the directory for d.
func Linger(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(ctx, lingerKey{}, d)
}

// searchKey is where a context has that Get searches.
type searchKey struct{}

// Search is Linger for a caller who has just come, and knows few of a large swarm: none
// of them may keep the record. While copies of the newest number that is found lie
// under half of the keys, or fewer, Get waits for the directory as long as that may take,
// unless hardly anybody is known: then nobody else is there.
func Search(ctx context.Context, d time.Duration) context.Context {
	return context.WithValue(Linger(ctx, d), searchKey{}, true)
}

// knowsAll is how many peers one at most knows in a swarm of which one knows everybody:
// half of those that the directory names to whoever looks for his own neighbours.
const knowsAll = 10

// Get returns all copies that are found under these keys, by the directory and
// by asking the peers that would keep them.
func (r *Records) Get(ctx context.Context, keys []group.SlotKey) Found {
	var mu sync.Mutex // guards f and what follows
	f := Found{Heard: true}
	var newest uint64
	lingers := len(keys)                        // keys whose peers are still waited for
	searching, found := context.WithCancel(ctx) // ends when no more are, and copies of the newest number lie under most keys
	defer found()
	settle := func() {
		if slots, _ := f.Spread(newest); lingers == 0 && 2*slots > len(keys) {
			found()
		}
	}
	add := func(c Copy) {
		mu.Lock()
		defer mu.Unlock()
		f.Copies = append(f.Copies, c)
		newest = max(newest, c.Number)
		settle()
	}
	var wg sync.WaitGroup
	for _, k := range keys {
		order, likely := r.rankAll(k)
		asked := order[:min(askedEach, len(order))]
		ctx, leave := lingering(ctx)
		lookup := ctx
		search := ctx.Value(searchKey{}) != nil && len(order) > knowsAll
		if search {
			lookup = searching
			context.AfterFunc(ctx, func() {
				mu.Lock()
				defer mu.Unlock()
				lingers--
				settle()
			})
		}
		c := counting{of: len(asked), all: len(asked) == len(order), leave: leave}
		for i, p := range asked {
			c.expected += likely[i]
			c.silent += rank(r.isSilent(p))
		}
		wg.Go(func() {
			if ended := r.askDirectory(lookup, k, c.all && !search, add); search && !ended {
				mu.Lock()
				defer mu.Unlock()
				f.Heard = false
			}
		})
		wg.Go(func() {
			r.askKeepers(ctx, k, asked, add, c.count)
			mu.Lock()
			defer mu.Unlock()
			f.Heard = f.Heard && c.heard()
		})
	}
	wg.Wait()
	return f
}

// isSilent reports whether a peer was silent lately.
func (r *Records) isSilent(p group.PeerKey) bool { return r.Silent != nil && r.Silent(p) }

// counting is how many of those who were asked for one copy have answered.
type counting struct {
	of, silent int     // asked; of these, those that were silent before
	all        bool    // nobody else is known, so that the directory leads to no other copy
	expected   float64 // answers
	leave      leaving

	mu              sync.Mutex // guards both below
	ended, answered int
}

// count takes note that one has answered, or will not, and lets Get leave when enough
// have.
func (c *counting) count(answered bool) {
	c.mu.Lock()
	c.ended++
	c.answered += rank(answered)
	ended := c.ended
	c.mu.Unlock()
	switch {
	case !c.heard():
	case c.all && ended >= c.of-c.silent:
		c.leave.now()
	default:
		c.leave.soon()
	}
}

// heard reports whether so many have answered as Found.Heard says.
func (c *counting) heard() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return 2*float64(c.answered) > c.expected
}

// leaving ends the wait for others.
type leaving struct {
	soon func() // if Get is to linger, when it has
	now  func()
}

// lingering returns a context that ends some time after soon was called, or at once, if
// Get is to linger.
func lingering(ctx context.Context) (context.Context, leaving) {
	d, ok := ctx.Value(lingerKey{}).(time.Duration)
	if !ok {
		return ctx, leaving{func() {}, func() {}}
	}
	ctx, cancel := context.WithCancel(ctx)
	var once sync.Once
	begin := time.Now()
	return ctx, leaving{func() { once.Do(func() { time.AfterFunc(max(d, time.Since(begin)), cancel) }) }, cancel}
}

// askDirectory asks for the copy that the directory leads to. In a swarm in which
// everybody is asked anyway, that is no other one than some peer has. It returns false if
// the time ended before it was known whether there is one.
func (r *Records) askDirectory(ctx context.Context, k group.SlotKey, all bool, add func(Copy)) (ended bool) {
	if r.Directory == nil {
		return true
	}
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	word, err := r.Directory.GetRecord(ctx, k)
	if err != nil {
		return !errors.Is(ctx.Err(), context.DeadlineExceeded)
	}
	if rec, err := group.ParseSlotRecord(word); err == nil {
		add(Copy{From: group.PeerKey(k), Number: rec.Number, Word: word, key: k, alike: all})
	}
	return true
}

// askKeepers asks peers for the copy that each of them keeps, and tells of each whether it
// answered.
func (r *Records) askKeepers(ctx context.Context, k group.SlotKey, peers []group.PeerKey, add func(Copy), tell func(answered bool)) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	var wg sync.WaitGroup
	for _, p := range peers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, r.timeout()/4)
			defer cancel()
			rec, word, err := r.Keepers.GetRecord(ctx, p, k)
			if err == nil {
				add(Copy{From: p, Number: rec.Number, Word: word, key: k})
			}
			tell(err == nil || errors.Is(err, client.ErrAbsent))
		})
	}
	wg.Wait()
}
