package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/state"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// Content is what the tree needs of a commit's content that is not here. Its
// errors are those of package readerr.
type Content interface {
	// Dir calls fn for every entry of a committed directory.
	Dir(ctx context.Context, root link.Link, fn func(name string, rec dag.Inode) error) error
	// Linked returns the record of an inode with several links.
	Linked(ctx context.Context, id uint64) (dag.Inode, error)
	// ReadChunk returns chunk i of a committed file: dag.ChunkSize bytes, fewer
	// at its end. The caller may keep and change the slice.
	ReadChunk(ctx context.Context, f dag.File, i int64) ([]byte, error)
	// LendChunk calls use with the chunk, which must not be kept or changed.
	LendChunk(ctx context.Context, f dag.File, i int64, use func(chunk []byte)) error
}

// Options say how a tree is opened.
type Options struct {
	State   *state.Store
	Backing *backing.Store
	// Content serves what is not here; nil if nothing ever was committed.
	Content Content
	// Device is the prefix of the inode numbers made here, 1 … 2²⁴-1.
	Device uint32
	// Passthrough says that the kernel may be given backing files.
	Passthrough bool
	// Capacity says how many bytes the drive may hold, and how many it could
	// still take; nil asks the disk below the backing files.
	Capacity func() (total, avail int64)
	// Held returns nil if the holders have chunks [from, to) of a committed
	// file safely, so that they may be let go of here; nil takes it for
	// granted. It is called without locks.
	Held func(ctx context.Context, f dag.File, from, to int64) error
	// Same reports whether chunk is chunk i of a committed file. It may wait for
	// peers; the inode is locked meanwhile. Nil: whatever is here is believed.
	Same func(ctx context.Context, f dag.File, i int64, chunk []byte) (bool, error)
	// Damaged is told what is let go of as it is not what was left on the disk, and of
	// which file; nil is allowed. It must not ask the tree.
	Damaged func(path, what string)
	// Pinned is called, without locks, when something was pinned or unpinned;
	// nil is allowed.
	Pinned func()
	// Changed is called, without locks, when something changed that a commit
	// should take. It must not block. Nil is allowed.
	Changed func()
	// Owner of the root directory of a new tree.
	Owner Owner
	// Idle is how many inodes stay in memory, about, that nobody uses; 0 is 32 Ki.
	Idle int
	// Now is the clock; nil is time.Now.
	Now func() time.Time
	// Log takes what nobody waits for; nil discards it.
	Log *slog.Logger
}

// Tree is an open tree, safe for concurrent use.
type Tree struct {
	st      *state.Store
	files   *backing.Store
	content Content
	opt     Options
	log     *slog.Logger

	gate  sync.RWMutex // see the package comment
	names sync.RWMutex
	epoch atomic.Uint64

	inodes inodeTable

	room     Room
	sweep    sweep
	pins     pins
	passing  passing
	orphans  orphans
	left     leftovers
	loading  flights  // directories being loaded
	burst    burst    // of small files
	away     absences // before this run; not changed after Open
	listings listings
	written  written
	// diskFailed says that a flush of the whole disk failed: see syncDisk.
	diskFailed atomic.Bool
	noAtime    atomic.Bool

	numberMu sync.Mutex // guards the next two
	nextIno  uint64
	inoLimit uint64 // numbers below are reserved in the tables

	backingLimit atomic.Uint64 // numbers of backing files up to it are reserved in the tables

	count count

	// kept is the number of the first record of the journal that may be relied
	// on: rows that were written before are in the index alone.
	kept  atomic.Uint64
	above above // what changes since then carried
	// unfinished is where a Carry began that was broken off, or is under way; 0: none.
	unfinished atomic.Uint64

	fineOnce sync.Once
	fine     bool // see fineTimes; set by fineOnce

	cutMu   sync.Mutex // guards cutting
	cutting *Cut       // the commit under way

	removeMu sync.Mutex          // guards the next three
	removals []removal           // backing files to delete once it is safe
	punches  []punch             // ranges to free once it is safe
	fetched  map[*inode]struct{} // files of which no row says yet what was fetched

	came atomic.Uint64 // bytes that were fetched

	files64, bytes64, here64 atomic.Int64 // how many files and bytes the tree holds, and how many of these are here
	local64, unsynced64      atomic.Int64 // bytes of backing files, and of those that no commit has taken
	written64, tried64       atomic.Int64 // bytes that came to be dirty, and of these, those that a commit has tried: see Waiting
	left64                   atomic.Int64 // bytes of files that the newest commit left
	passed64                 atomic.Int64 // bytes of files that the kernel writes alone, as counted last
	copies64                 atomic.Int64 // bytes of copies that commits read: see countCopy
	going64                  atomic.Int64 // bytes that were let go of, and may still be on the disk
	small64                  atomic.Int64 // bytes of small files that may be let go of
	recharges                atomic.Int64 // how often unsynced64 or small64 changed

	ctx        context.Context // of what runs in the background; ended by Close
	cancel     context.CancelFunc
	background sync.WaitGroup
}

// Format hides keys, and what leads to them, from every formatting verb.
func (*Tree) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "tree.Tree(…)") }

// inode is one inode in memory. It exists while somebody holds a reference and
// for some time after.
type inode struct {
	ino  Ino
	refs refs

	mu          sync.Mutex // guards all below
	row         row
	orphan      bool       // no name leads to it and no row holds it
	goneEpoch   uint64     // in which it lost its last name
	left        bool       // … but its content's: see leftovers
	stale       bool       // gone: an orphan that was forgotten
	seq         uint64     // batch of the last change of the row
	markedEpoch uint64     // in which its entry was marked last
	known       knownNames // of a directory
	names       uint64     // of a directory: the state of its names, 0 until somebody asks

	opens, writers int
	storers        int           // handles for reading and writing: what has them may store by mappings
	held           *File         // released, and open for the sake of mappings; nil for none
	forgotten      bool          // by the kernel, an orphan that is open
	writing        bool          // the mark "open for writing" stands
	marking        bool          // … in the tables, and is not known to be on the disk
	untold         bool          // of a partial file: a truncation or a write is not in the tables
	file           disk.File     // open backing file, while opens > 0 or a change is under way
	fine           foldset       // what of it was prepared for small writes
	named          bool          // the backing file's name is on the disk
	flushed        bool          // … and its content, as far as is known
	unflushed      uint64        // counts how often flushed became false
	listed         bool          // among those to be flushed soon
	flushedAt      unix.Timespec // change time, before it was flushed, of a file that the kernel writes alone
	flush          *flush        // under way without mu; nil: none
	flushes        uint64        // how many of these were begun
	flushErr       error         // of a flush that failed: what it lost stays lost
	kept           bool          // a reference is held, so that flushErr is not forgotten
	undoubted      bool          // what is here was left there by us, or was compared: see settleDoubt
	loose          uint64        // batch that first put content into the inline row; 0: it may be on the disk
	passthrough    bool          // handles of this inode bypass the daemon
	inline         []byte        // content of an orphan without backing file
	xattrs         map[string][]byte
	xattrsRead     bool

	valid            backing.Ranges  // what of a partial backing file is here
	dirty            backing.Ranges  // what changed since the cut that took the rest
	whole            bool            // dirty is not known: all may have changed
	ranged           bool            // valid, dirty and whole were read from the tables
	added            addedWrites     // that made more of it valid
	lastChunk, ahead int64           // that was read last, and that was asked for ahead of it
	reading          context.Context // of what is fetched ahead; nil: nothing was since it was opened
	endReading       context.CancelFunc

	closing   bool     // a chunk is being fetched to close gaps: see closeGaps
	gained    bool     // valid grew by what was fetched since the ranges were written
	used      Time     // when it was opened or read last, in this run
	charged   charge   // what the tree's totals have of it
	wrote     int64    // bytes written since local was counted
	frozen    *frozen  // content that a commit is still to read
	before    *dirtied // what the commit under way takes, until it is published
	counted   tally    // what the count has of its row: see count
	soft      bool     // size and times in memory are newer than the row in the tables
	atimeSoft bool     // so is the access time
	seen      Time     // modification time of the backing file when it was looked at last
	seenSet   bool

	// Of a passed-through file:
	taken   *unix.Stat_t  // as the last commit took it, if it was at rest
	order   uint64        // counts flushes that programs asked for, and truncations
	copying chan struct{} // closed when a commit has copied it: see ordered; nil: none does
	// slowSince is when a flush did not wait any longer for that.
	slowSince time.Time
	unheard   bool // somebody may flush it without our hearing of it, by O_SYNC
	joined    bool // written in place, alone because somebody read it so: see notePassed
	grows     bool // alone because somebody read it so, and since then only appended to
}

// Open opens the tree over its tables, making the root directory if there is
// nothing yet.
func Open(opt Options) (*Tree, error) {
	t := &Tree{
		st: opt.State, files: opt.Backing, content: opt.Content, opt: opt, log: opt.Log,
		fetched: map[*inode]struct{}{}, room: boundless{},
	}
	t.inodes.init(opt.Idle)
	t.ctx, t.cancel = context.WithCancel(context.Background())
	if t.opt.Now == nil {
		t.opt.Now = time.Now
	}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	if opt.Device == 0 || opt.Device >= 1<<24 {
		return nil, fmt.Errorf("tree: device prefix %d: %w", opt.Device, ErrInvalid)
	}
	if err := t.readSingles(); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := t.readPins(); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := t.ensureRoot(); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	written, err := t.recoverWriting()
	if err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := t.findLeft(); err != nil {
		return nil, fmt.Errorf("tree: %w", err)
	}
	if err := t.holdMapped(written); err != nil {
		t.cancel()
		return nil, fmt.Errorf("tree: %w", err)
	}
	return t, nil
}

func (t *Tree) readSingles() error {
	epoch, _, err := t.st.Get(singleKey("epoch"))
	if err != nil {
		return err
	}
	t.epoch.Store(max(1, valueUint64(epoch)))
	next, _, err := t.st.Get(singleKey("ino"))
	if err != nil {
		return err
	}
	t.nextIno = max(16, valueUint64(next))
	t.inoLimit = t.nextIno
	if err := t.startBacking(); err != nil {
		return err
	}
	if first := t.st.Kept(); first > 1 {
		t.kept.Store(first)
	}
	if err := t.readUsage(); err != nil {
		return err
	}
	t.written64.Store(t.unsynced64.Load())
	return t.readCount()
}

// startBacking says where the numbers of backing files go on. Only without a row
// that tells it does it look at them all.
func (t *Tree) startBacking() error {
	last, ok, err := t.st.Get(singleKey("backing"))
	if err != nil {
		return err
	}
	if !ok {
		return t.files.Find()
	}
	t.files.Start(valueUint64(last))
	t.backingLimit.Store(valueUint64(last))
	return nil
}

func (t *Tree) ensureRoot() error {
	_, ok, err := t.st.Get(key(tableInode, Root))
	if ok || err != nil {
		return err
	}
	now := t.now()
	r := row{flags: flagLoaded, mode: modeDir | 0o755, nlink: 2, uid: t.opt.Owner.UID, gid: t.opt.Owner.GID,
		atime: now, mtime: now, ctime: now, btime: now, cookie: firstCookie}
	var b state.Batch
	b.Put(key(tableInode, Root), r.encode())
	b.Put(markKey(0, ""), uint64Value(t.epoch.Load()))
	_, err = t.st.Apply(&b)
	return err
}

func (t *Tree) now() Time { return TimeOf(t.opt.Now()) }

func (t *Tree) changed() {
	if t.opt.Changed != nil {
		t.opt.Changed()
	}
}

// newIno gives out the next inode number; b reserves a run of them in the
// tables where needed.
func (t *Tree) newIno(b *state.Batch) Ino {
	t.numberMu.Lock()
	defer t.numberMu.Unlock()
	n := t.nextIno
	t.nextIno++
	if t.nextIno > t.inoLimit {
		t.inoLimit = t.nextIno + 4096
		b.Put(singleKey("ino"), uint64Value(t.inoLimit))
	}
	return Ino(uint64(t.opt.Device)<<40 | n)
}

// readRow reads an inode's row; that of an inode with several links may still
// have to come from the commit.
func (t *Tree) readRow(ctx context.Context, ino Ino) (row, error) {
	b, ok, err := t.st.Get(key(tableInode, ino))
	if err != nil {
		return row{}, err
	}
	if !ok {
		return row{}, ErrStale
	}
	r, err := decodeRow(b)
	if err == nil && r.has(flagUnread) {
		return t.loadLinked(ctx, ino)
	}
	return r, err
}

// StatFS tells the size and the room of the drive, and never that there is none: see
// roomUnit.
func (t *Tree) StatFS(context.Context) (StatFS, error) {
	var total, avail int64
	if t.opt.Capacity != nil {
		total, avail = t.opt.Capacity()
	} else {
		var err error
		if total, avail, err = t.files.Disk(); err != nil {
			return StatFS{}, err
		}
	}
	if short := roomUnit - avail; short > 0 {
		total, avail = total+short, avail+short
	}
	files, free := uint64(max(0, t.files64.Load())), uint64(avail/roomUnit)
	return StatFS{Total: total, Free: avail, Avail: avail, Files: files + free, FreeFiles: free, NameLen: NameMax}, nil
}

// roomUnit is what an inode counts for in StatFS, and the least that is told to be free:
// programs take 0 for a filesystem that does not tell, or that is none.
const roomUnit = 4096

// Usage is how many files and bytes of content the tree holds. After a crash it
// lacks what came since the last cut, and must not be taken for less than
// nothing when that goes.
func (t *Tree) Usage() (files, bytes int64) {
	return max(0, t.files64.Load()), max(0, t.bytes64.Load())
}

// Here is how many bytes of content are on this device.
func (t *Tree) Here() int64 { return min(max(0, t.here64.Load()), max(0, t.bytes64.Load())) }

// noSpace turns the disk's word into ours.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}
