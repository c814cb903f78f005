package state

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/syndtr/goleveldb/leveldb/storage"
	"golang.org/x/sys/unix"
)

// luck has what is done to files of the index fail now and then, for some times in a row.
type luck struct {
	mu   sync.Mutex // guards all
	r    *rand.Rand
	bad  bool // else all goes well
	op   string
	kind storage.FileType
	err  error
	left int
}

func (l *luck) fail(op string, kind storage.FileType) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.bad {
		return nil
	}
	if l.left == 0 && l.r.IntN(60) == 0 {
		l.left = 1 + l.r.IntN(6)
		l.op = []string{"create", "write", "sync", "meta", "read", "remove"}[l.r.IntN(6)]
		l.kind = []storage.FileType{storage.TypeJournal, storage.TypeManifest, storage.TypeTable, storage.TypeAll}[l.r.IntN(4)]
		if l.err = unix.EIO; l.op != "read" && l.r.IntN(2) == 0 {
			l.err = unix.ENOSPC
		}
	}
	if l.left == 0 || op != l.op || kind&l.kind == 0 {
		return nil
	}
	l.left--
	return l.err
}

func (l *luck) turn(bad bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bad = bad
}

// unlucky is a store whose index meets failures, and what it has to hold.
type unlucky struct {
	t    *testing.T
	r    *rand.Rand
	luck *luck
	dir  string
	opt  Options
	s    *Store
	rows map[string]string
}

// underRace says that the race detector is there.
var underRace bool

// Whatever fails below the index, in whatever order: what was applied is there, at once,
// in views, after the store was closed, and after the process was killed. Where the index
// has to be made anew, that is told.
func TestFailuresLoseNothing(t *testing.T) {
	if underRace {
		t.Skip("leveldb sends on a channel that is closed when what it waits for failed, on purpose")
	}
	for seed := range uint64(12) {
		f, opt := faultyOptions()
		u := &unlucky{t: t, r: rand.New(rand.NewPCG(seed, 1)), luck: &luck{r: rand.New(rand.NewPCG(seed, 2))},
			dir: t.TempDir(), opt: opt, rows: map[string]string{}}
		u.opt.SegmentSize = 256 << 10
		fail := u.luck.fail
		f.fail.Store(&fail)
		u.run()
		if t.Failed() {
			t.Fatalf("with seed %d", seed)
		}
	}
}

func (u *unlucky) run() {
	whole := u.open()
	for step := 0; step < 60 && whole && !u.t.Failed(); step++ {
		u.luck.turn(true)
		switch c := u.r.IntN(13); {
		case c < 6:
			whole = u.apply(step)
		case c < 9:
			u.cut()
		case c < 10:
			_ = u.s.Forget(u.s.Seq())
		case c < 11:
			_ = compact(u.s, byte('0'+u.r.IntN(4)))
		case c < 12:
			u.kill()
		default:
			whole = u.reopen()
		}
	}
	u.luck.turn(false)
	_ = u.s.Close()
}

// open opens the store, the second time with luck, and reports whether the index is whole.
func (u *unlucky) open() bool {
	s, err := OpenWith(u.dir, u.opt)
	u.luck.turn(false)
	if err != nil {
		s, err = OpenWith(u.dir, u.opt)
	}
	if err != nil {
		u.t.Fatal(err)
	}
	u.s = s
	if !s.Rebuilt() {
		u.check("opened", s)
	}
	return !s.Rebuilt()
}

func (u *unlucky) reopen() bool {
	_ = u.s.Close()
	u.luck.turn(u.r.IntN(2) == 0)
	return u.open()
}

// apply applies a batch; where that fails, the store is opened anew.
func (u *unlucky) apply(step int) bool {
	var b Batch
	rows := map[string]string{}
	for range u.r.IntN(100) {
		k, v := fmt.Sprintf("%03d", u.r.IntN(400)), strings.Repeat(fmt.Sprint(step), 1+u.r.IntN(400))
		b.Put([]byte(k), []byte(v))
		rows[k] = v
	}
	if _, err := u.s.Apply(&b); err != nil {
		return u.reopen()
	}
	maps.Copy(u.rows, rows)
	return true
}

func (u *unlucky) cut() {
	view, err := u.s.BeginCut().View()
	if err != nil {
		return
	}
	defer view.Release()
	u.luck.turn(false)
	u.check("a view", view)
}

// compact compacts a table, and waits for it.
func compact(s *Store, table byte) error {
	done := make(chan error, 1)
	s.Compact(table, func(err error) { done <- err })
	return <-done
}

// kill looks at what the store would be if the process ended now.
func (u *unlucky) kill() {
	u.luck.turn(false)
	u.s.flushMu.Lock()
	u.s.db.files.busy.Lock()
	dir := copyOf(u.t, u.dir)
	u.s.db.files.busy.Unlock()
	u.s.flushMu.Unlock()
	s, err := OpenWith(dir, Options{SegmentSize: u.opt.SegmentSize, OverlaySize: u.opt.OverlaySize})
	if err != nil {
		u.t.Fatal(err)
	}
	if !s.Rebuilt() {
		u.check("killed", s)
	}
	if err := s.Close(); err != nil {
		u.t.Error(err)
	}
}

func (u *unlucky) check(when string, r Reader) {
	u.t.Helper()
	var want strings.Builder
	for _, k := range slices.Sorted(maps.Keys(u.rows)) {
		fmt.Fprintf(&want, "%s=%s ", k, u.rows[k])
	}
	if got := dump(u.t, r); got != want.String() {
		u.t.Errorf("%s: %d bytes of rows, not %d", when, len(got), want.Len())
	}
}
