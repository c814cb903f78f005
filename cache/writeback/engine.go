package writeback

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"skep/cache/blocks"
	"skep/cache/packfiles"
	"skep/cache/readthrough"
	"skep/cache/state"
	"skep/cache/tree"
	"skep/chunker/block"
	"skep/chunker/commit"
	"skep/chunker/erasure"
	"skep/chunker/group"
	"skep/chunker/link"
	"skep/chunker/secret"
)

// Publisher makes a head known: sealed for its slots, to its keepers and in the
// DHT. It returns when enough copies are kept that the head can be found.
type Publisher func(ctx context.Context, h commit.Head) error

// Config is what an Engine works with. All fields but Alone, Lost, OnlyHere, Said, Weak,
// Live and There are needed.
type Config struct {
	State   *state.Store
	Tree    *tree.Tree
	Table   *blocks.Table
	Reader  *readthrough.Reader
	Packs   *packfiles.Store
	Sink    Sink
	Publish Publisher
	// Alone reports whether somebody looked around, beginning after since, and
	// found no commit that the newest one here does not follow, nor a device that
	// may make one. While it is false, packs are neither folded nor given up. It
	// must not wait; nil says that it is so. When it may have come to be true,
	// Looked is to be called.
	Alone func(since time.Time) bool
	// Lost reports whether too few shards of a pack are left to read it, or too few for
	// now of one that is to be stored again. It must not wait; nil says that none is lost.
	Lost func(id group.ID, number uint16) bool
	// OnlyHere returns the packs of which too few shards are left to read them, and a copy
	// is here. It must not wait; nil says that there are none.
	OnlyHere func() map[group.ID]group.Bitmap
	// Said is how many holders of a pack have said that they have their shard, and answer
	// now: what is only presumed of the others does not count. It must not wait; nil
	// stands for all.
	Said func(p blocks.Pack) int
	// Weak reports whether packs of a class and kind in a coding are clearly less safe
	// than they would be if they were stored now. It must not wait; nil says that none are.
	Weak func(class erasure.Class, kind group.Kind, coding erasure.Coding) bool
	// Live is how many shards of a pack are believed to be there, and There how many of
	// a group's holders, as far as is known. They must not wait; nil stands for all.
	Live  func(g group.Group, p blocks.Pack) int
	There func(g group.Group) int

	Drive       [16]byte
	Epoch       uint32
	Device      ed25519.PrivateKey // signs commits
	Root        secret.Key         // group keys derive from it
	Names       secret.Key         // keys the names of directories
	Read        secret.Key         // of the epoch: seals pack indexes
	Convergence secret.Key         // of the epoch: keys of blocks
	// ContentClass is the largest class of packs of content.
	ContentClass erasure.Class

	// JournalMax is from which size on, in bytes, the journal is written anew
	// though no commit succeeds; 0 is 256 MiB.
	JournalMax int64

	Timing Timing
	Now    func() time.Time
	Log    *slog.Logger
}

// Format hides the keys from every formatting verb.
func (c Config) Format(f fmt.State, _ rune) { _, _ = fmt.Fprint(f, "writeback.Config(…)") }

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
	pace     *pace

	// toldLast is of which group that was let go of holders were told last. Used by
	// RenewLeases alone.
	toldLast group.ID

	groups  *semaphore.Weighted // of one: held for current, and to found or change groups, also over the network
	current map[groupKind]group.Group
	freshAt time.Time              // when a group was founded last because another failed; guarded by groups
	vain    atomic.Int32           // how many were so since a pack was stored
	shunned map[group.ID]time.Time // groups that were left again, until when; guarded by groups
	strive  striving
	saving  striving // of rescue

	isSettled bool // the tree and the account were told of the newest commit, in this run, and none is to be

	shape indexShape

	// Used by Run alone:
	journalMax int64 // when to write the journal anew
	carried    int64 // bytes that it said again when it was cut last
	// When what could not be read is tried again, to be given up.
	retryUnread time.Time
	// Packs that could not be folded, and until when they rest.
	unfolded map[packID]time.Time
	// When weak packs are looked for again.
	weakAfter time.Time
	saying    striving // anew of a newest commit that is lost, where nothing else changed
	telling   striving // what is untold, while content waits for room
	unlinking striving // what the table of links may not let go of, as it cannot be read
	// The commit of which it was seen last that its index is lost below lists of pieces,
	// zero for none; and how often such lists are tried.
	lostBelow link.Link
	listing   striving
	// Packs that are dead, and since when the commit is out that let them die, until
	// it is known that nobody else may need them.
	waiting  map[packID]time.Time
	reviewed uint64 // commits published when these were looked at last
	unread   unreadFiles
	restless map[tree.Ino]bool // files that were written whenever the last commit read them
	// The last commit took nothing of what has changed: the next one is tried again, perhaps
	// in vain, and packs are not folded for it that are folded along with others.
	tookNothing bool
	before      superseded // by the newest commit
	// In this run no pack but its own was sent since the newest commit was published.
	saidAll atomic.Bool

	uplink  uplink
	pending pending

	dirty notice        // something changed
	waits atomic.Bool   // something could be given up, were more known: see Looked
	asked chan *request // Sync

	mu        sync.Mutex // guards all below
	progress  Progress
	anew      map[link.Link]bool // see Anew
	left      map[groupKind]leaving
	commits   uint64    // that ended, well or not
	published time.Time // when this run published a commit last
	turns     uint64    // commits that this run published
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Engine) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "writeback.Engine(…)") }

// Progress tells how far write-back is.
type Progress struct {
	Running   bool
	Started   time.Time // of the commit under way
	Sent      int64     // bytes of packs stored by it
	LastError string    // of the last commit that failed; empty after one that did not
	NoRoom    bool      // it failed for want of room with holders
	LastDone  time.Time // when the newest commit was published
	Number    uint64    // of the newest commit
	Moving    []string  // files that would not come to rest in it: older versions stand
	InMotion  []string  // files that it took while they were written: see tree.Ordered
	Unread    []string  // files of which it could not read what is not here
	// Packs that nothing here needs, and their bytes at holders, that are given up when
	// it is known that this device is alone.
	Waiting      int
	WaitingBytes int64
	// Pieces of the block index that are here, and all of them, on a device that
	// joined the drive, or lost its index, since it began to fetch them.
	IndexDone, IndexTotal int
	// IndexUnread is why the next piece, or a block in whose turn it is to be counted,
	// cannot be read now.
	IndexUnread string
}

// Failing reports whether the last commit failed, and the one under way has stored
// nothing yet.
func (p Progress) Failing() bool { return p.LastError != "" && !(p.Running && p.Sent > 0) }

// New returns an Engine; the tree's newest commit, if any, is taken from the
// tables.
func New(cfg Config) (*Engine, error) {
	e := &Engine{
		shape: wholeIndex,
		cfg:   cfg, table: cfg.Table, reader: cfg.Reader, packs: cfg.Packs,
		sealer: block.NewSealer(cfg.Convergence), read: cfg.Read,
		cpu: make(chan struct{}, runtime.GOMAXPROCS(0)), parallel: 2 * runtime.GOMAXPROCS(0), pace: newPace(),
		current: map[groupKind]group.Group{}, unfolded: map[packID]time.Time{}, shunned: map[group.ID]time.Time{}, left: map[groupKind]leaving{}, anew: map[link.Link]bool{}, unread: unreadFiles{tried: map[tree.Ino]time.Time{}, chunks: map[tree.Ino][]int64{}}, groups: semaphore.NewWeighted(1), dirty: newNotice(), asked: make(chan *request),
	}
	if e.cfg.JournalMax == 0 {
		e.cfg.JournalMax = 256 << 20
	}
	e.journalMax = e.cfg.JournalMax
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

// Anew has a directory made from all of its entries, and not from the version with
// this root, of which a node cannot be read, when it is committed next. All of its
// entries have to be here.
func (e *Engine) Anew(root link.Link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.anew[root] = true
}

func (e *Engine) isAnew(root link.Link) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.anew[root]
}

// isNew says that a commit has the directory without this version.
func (e *Engine) isNew(root link.Link) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.anew, root)
}

// Looked tells that Alone may have come to be true: what waited for that, or for holders
// to say what they have, is given up, also if nothing else changes. It never blocks.
func (e *Engine) Looked() {
	if e.waits.Swap(false) {
		e.Changed()
	}
}

// Changed tells that there is something to commit. It never blocks.
func (e *Engine) Changed() { e.dirty.tell() }
