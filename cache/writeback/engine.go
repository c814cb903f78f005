package writeback

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/secret"
)

// Publisher makes a head known: sealed for its slots, to its keepers and in the
// DHT. It returns when enough copies are kept that the head can be found.
type Publisher func(ctx context.Context, h commit.Head) error

// Config is what an Engine works with. All fields are needed.
type Config struct {
	State   *state.Store
	Tree    *tree.Tree
	Table   *blocks.Table
	Reader  *readthrough.Reader
	Packs   *packfiles.Store
	Sink    Sink
	Publish Publisher

	Drive       [16]byte
	Epoch       uint32
	Device      ed25519.PrivateKey // signs commits
	Root        secret.Key         // group keys derive from it
	Names       secret.Key         // keys the names of directories
	Read        secret.Key         // of the epoch: seals pack indexes
	Convergence secret.Key         // of the epoch: keys of blocks
	// ContentClass is the largest class of packs of content.
	ContentClass erasure.Class

	Timing Timing
	Now    func() time.Time
	Log    *slog.Logger
}

// Timing says when a commit starts by itself.
type Timing struct {
	Quiet time.Duration // this long after the last change …
	Most  time.Duration // … but at most this long after the first one
	Retry time.Duration // after a commit failed, doubled up to Most
}

// DefaultTiming is that of a drive in use.
var DefaultTiming = Timing{Quiet: 3 * time.Second, Most: 30 * time.Second, Retry: 2 * time.Second}

// Engine makes commits. Run does so by itself; Sync waits for one.
type Engine struct {
	cfg      Config
	table    *blocks.Table
	reader   *readthrough.Reader
	packs    *packfiles.Store
	sealer   *block.Sealer
	read     secret.Key
	cpu      chan struct{} // one token for each chunk being read and sealed
	parallel int           // files stored at a time
	buffers  bufferPool

	groupMu sync.Mutex // guards current, and the founding of groups
	current map[groupKind]group.Group

	dirty chan struct{} // something changed
	asked chan *request // Sync

	mu       sync.Mutex // guards all below
	progress Progress
	moved    bool // the group table changed since the newest commit
}

// Progress tells how far write-back is.
type Progress struct {
	Running   bool
	Started   time.Time // of the commit under way
	Sent      int64     // bytes of packs stored by it
	LastError string    // of the last commit that failed; empty after one that did not
	LastDone  time.Time // when the newest commit was published
	Number    uint64    // of the newest commit
	Moving    []string  // files that would not come to rest in it
}

// New returns an Engine; the tree's newest commit, if any, is taken from the
// tables.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		cfg: cfg, table: cfg.Table, reader: cfg.Reader, packs: cfg.Packs,
		sealer: block.NewSealer(cfg.Convergence), read: cfg.Read,
		cpu: make(chan struct{}, runtime.GOMAXPROCS(0)), parallel: 2 * runtime.GOMAXPROCS(0),
		current: map[groupKind]group.Group{}, dirty: make(chan struct{}, 1), asked: make(chan *request),
	}
	if err := e.loadGroups(); err != nil {
		return nil, fmt.Errorf("write-back: %w", err)
	}
	c, at, ok, err := LoadCommit(cfg.State)
	if err != nil {
		return nil, fmt.Errorf("write-back: %w", err)
	}
	if ok {
		cfg.Reader.SetCommit(&c, at)
		e.progress.Number, e.progress.LastDone = c.Number, time.Unix(c.Time, 0)
	}
	return e, nil
}

func (e *Engine) now() time.Time { return e.cfg.Now() }

func (e *Engine) classOf(k group.Kind) erasure.Class {
	if k == group.Metadata {
		return min(metadataClass, erasure.MaxClass)
	}
	return e.cfg.ContentClass
}

func (e *Engine) sent(n int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.progress.Sent += n
}

// Progress returns how far write-back is.
func (e *Engine) Progress() Progress {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.progress
}

// Changed tells that there is something to commit. It never blocks.
func (e *Engine) Changed() {
	select {
	case e.dirty <- struct{}{}:
	default:
	}
}

// GroupsChanged tells that slots have other holders than the newest commit's
// group table says: the next commit writes it anew, even if nothing else did.
func (e *Engine) GroupsChanged() {
	e.mu.Lock()
	e.moved = true
	e.mu.Unlock()
	e.Changed()
}

// takeMoved reports whether the group table changed, once.
func (e *Engine) takeMoved() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	moved := e.moved
	e.moved = false
	return moved
}

// request is somebody who waits for a commit that begins after he asked.
type request struct{ done chan error }

// MovingError says that all was published but these files, which did not come
// to rest: their newest whole versions stand.
type MovingError struct{ Paths []string }

func (m *MovingError) Error() string {
	return fmt.Sprintf("%d files are being written and were not taken whole: %q", len(m.Paths), m.Paths)
}

// Sync returns when everything that was done before the call is published; with
// a MovingError, everything but files that are being written.
func (e *Engine) Sync(ctx context.Context) error {
	r := &request{done: make(chan error, 1)}
	select {
	case e.asked <- r:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-r.done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Run makes commits until ctx ends: some time after the last change, at most
// some time after the first, and at once for Sync. One that failed is tried
// again.
func (e *Engine) Run(ctx context.Context) error {
	var first, last time.Time // of the changes not taken; zero: none
	var retry time.Duration
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	// What an earlier run left is taken soon.
	e.Changed()
	counting := true
	for {
		var waiting []*request
		if counting {
			counting = e.recountSome(ctx)
		}
		timer.Reset(e.delay(first, last, retry))
		if counting && first.IsZero() {
			timer.Reset(0)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-e.dirty:
			last = e.now()
			if first.IsZero() {
				first = last
			}
			continue
		case r := <-e.asked:
			waiting = append(waiting, r)
		case <-timer.C:
			if first.IsZero() {
				continue
			}
		}
		select { // what was told until now is in the cut
		case <-e.dirty:
		default:
		}
		err := e.commit(ctx)
		var moving *MovingError
		if err == nil || errors.As(err, &moving) {
			first, last, retry = time.Time{}, time.Time{}, 0
			if moving != nil {
				first, last = e.now(), e.now()
			}
		} else if ctx.Err() == nil {
			e.cfg.Log.Warn("a commit failed and will be tried again", "err", err)
			retry = min(max(2*retry, e.cfg.Timing.Retry), e.cfg.Timing.Most)
			first = e.now()
			last = first
		}
		for _, r := range waiting {
			r.done <- err
		}
	}
}

// delay is how long to wait for the next commit.
func (e *Engine) delay(first, last time.Time, retry time.Duration) time.Duration {
	if first.IsZero() {
		return time.Hour
	}
	if retry > 0 {
		return max(0, last.Add(retry).Sub(e.now()))
	}
	due := last.Add(e.cfg.Timing.Quiet)
	if most := first.Add(e.cfg.Timing.Most); most.Before(due) {
		due = most
	}
	return max(0, due.Sub(e.now()))
}

// commitKey is where the newest commit and its locator lie in the tables.
var commitKey = []byte("hcommit")

// LoadCommit reads the newest commit from the tables.
func LoadCommit(st state.Reader) (c commit.Commit, at commit.Locator, ok bool, err error) {
	b, ok, err := st.Get(commitKey)
	if err != nil || !ok {
		return c, at, false, err
	}
	head, body, err := splitCommit(b)
	if err != nil {
		return c, at, false, err
	}
	if c, err = commit.Parse(body); err != nil {
		return c, at, false, err
	}
	return c, head.Commit, true, nil
}

// SaveCommit makes a commit the newest one in the tables.
func SaveCommit(b *state.Batch, h commit.Head, signed []byte) {
	head := h.Encode()
	v := append([]byte{byte(len(head) >> 8), byte(len(head))}, head...)
	b.Put(commitKey, append(v, signed...))
}

func splitCommit(b []byte) (commit.Head, []byte, error) {
	if len(b) < 2 {
		return commit.Head{}, nil, errors.New("malformed commit row")
	}
	n := int(b[0])<<8 | int(b[1])
	if len(b) < 2+n {
		return commit.Head{}, nil, errors.New("malformed commit row")
	}
	h, err := commit.ParseHead(b[2 : 2+n])
	return h, b[2+n:], err
}
