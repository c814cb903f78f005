package state

import (
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/syndtr/goleveldb/leveldb/memdb"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"skep/cache/disk"
	"skep/cache/journal"
)

const (
	// overlaySize is how many bytes of changes gather in memory before they
	// are moved into leveldb.
	overlaySize = 8 << 20
	// overlayMax is how many times that may wait when leveldb is slow; then
	// writers wait.
	overlayMax = 3
)

// What only leveldb holds. No table's key begins with a zero byte.
var (
	// seqKey is the number of the last record that it contains.
	seqKey = []byte{0}
	// lostKey stands as long as rows are missing that an earlier one had.
	lostKey = []byte{0, 1}
	// nothingKey never has a value.
	nothingKey = []byte{0, 2}
)

// ErrClosed says that the store was closed.
var ErrClosed = errors.New("state is closed")

// Store is an open set of tables, safe for concurrent use. Values that it
// returns must not be changed by the caller.
type Store struct {
	dir     string
	opt     Options
	journal *journal.Journal
	db      *index
	rebuilt bool

	applyMu sync.Mutex // held by who applies a batch: the journal and the overlays have one order
	olds    [][]byte   // what its patches overwrite; see prepare

	mu      sync.RWMutex // guards the overlays and seq
	active  *memdb.DB
	spare   *memdb.DB // empty: made before it is needed
	frozen  []overlay // oldest first: on their way into leveldb
	seq     uint64    // the last record applied
	cuts    int       // cuts begun whose view is not taken yet
	room    *sync.Cond
	scratch []byte // for one value
	closed  bool
	err     error // sticky failure of leveldb
	full    error // there was no room, memory or file for an overlay to move; it is tried again
	trying  bool  // overlays are being moved in the background
	ballast ballast
	damage  damage

	flushMu sync.Mutex // held while overlays move into leveldb
	inDB    uint64     // last record in leveldb; written with flushMu and mu held
	flushes sync.WaitGroup

	compacting  [256]bool // tables for which that goes on; guarded by mu
	compactions sync.WaitGroup

	reads atomic.Int64 // rows that were asked for or scanned
}

// Options say where the tables lie; the zero value is the filesystem of the
// machine and the usual sizes.
type Options struct {
	// Disk is what the journal is written to; nil is that of the machine.
	Disk disk.FS
	// Index opens the storage of leveldb, on the same disk, for a directory;
	// nil if that is the machine's.
	Index func(dir string) (storage.Storage, error)
	// SegmentSize is that of the journal's segments, OverlaySize how much
	// gathers in memory; 0 is the usual. Small ones make a test meet soon what
	// otherwise comes after many changes.
	SegmentSize, OverlaySize int64
	// Damaged is told, once and from a goroutine of its own, that the index was
	// found damaged; nil is allowed.
	Damaged func(error)
}

// Apply makes the changes of b, all or none; when it returns, they survive the
// end of the process. It returns the batch's sequence number. Readers do not
// wait for the journal.
func (s *Store) Apply(b *Batch) (uint64, error) {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	return s.applyNext(b)
}

// applyNext is Apply; s.applyMu is held.
func (s *Store) applyNext(b *Batch) (uint64, error) {
	if err := s.waitForRoom(); err != nil {
		return 0, err
	}
	if err := s.prepare(b); err != nil {
		s.tryAgain(err)
		return 0, err
	}
	seq, err := s.journal.Append(b.buf, b.freeing)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.apply(b)
	s.seq = seq
	if used(s.active) > int(s.opt.OverlaySize) {
		s.freeze()
		s.flushSoon()
	}
	return seq, nil
}

// Sync returns when all that was applied before the call is on the disk.
func (s *Store) Sync() error { return s.journal.Sync() }

// SyncTo returns when the batch with this sequence number, and all before it,
// are on the disk.
func (s *Store) SyncTo(seq uint64) error { return s.journal.SyncTo(seq) }

// Durable reports whether the batch with this sequence number is on the disk.
func (s *Store) Durable(seq uint64) bool { return s.journal.Durable(seq) }

// Seq is the number of the last batch applied.
func (s *Store) Seq() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.seq
}

// JournalSize is the room that the journal takes on the disk, in bytes.
func (s *Store) JournalSize() int64 { return s.journal.Size() }

// Step is how much room on the disk the journal asks for when it grows.
func (s *Store) Step() int64 { return s.journal.Step() }

// Reads is how many rows were asked for, or come by in a scan, since Open: what
// an operation costs here, whatever the machine.
func (s *Store) Reads() int64 { return s.reads.Load() }

// Appended is how many bytes the journal has taken in since it was opened.
func (s *Store) Appended() int64 { return s.journal.Appended() }

// IndexSize is the room that the index takes on the disk, in bytes.
func (s *Store) IndexSize() (n int64) {
	names, err := s.opt.Disk.Names(s.indexDir())
	if err != nil {
		return 0
	}
	for _, name := range names {
		if st, err := s.opt.Disk.Stat(filepath.Join(s.indexDir(), name)); err == nil {
			n += st.Blocks * 512
		}
	}
	return n
}

// Close moves everything into leveldb and closes the store.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.room.Broadcast()
	s.mu.Unlock()
	s.flushes.Wait()
	err := s.close()
	s.compactions.Wait() // they have no index any more
	s.flushes.Wait()     // what was found damaged in the end is noted
	return err
}

// close is Close when nothing is applied any more.
func (s *Store) close() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.mu.Lock()
	s.freeze()
	n := len(s.frozen)
	s.mu.Unlock()
	err := s.journal.Sync()
	if ferr := s.flushFrozen(n); err == nil {
		err = ferr
	}
	if cerr := s.db.Close(); err == nil {
		err = cerr
	}
	if cerr := s.journal.Close(); err == nil {
		err = cerr
	}
	return err
}
