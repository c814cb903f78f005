package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/comparer"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/memdb"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"
	"github.com/syndtr/goleveldb/leveldb/util"

	"skep/cache/disk"
	"skep/cache/journal"
)

const (
	// overlaySize is how many bytes of changes gather in memory before they
	// are moved into leveldb.
	overlaySize = 8 << 20
	// overlayMax is how many times that may wait when leveldb is slow; then
	// writers wait.
	overlayMax = 4
)

// What only leveldb holds. No table's key begins with a zero byte.
var (
	// seqKey is the number of the last record that it contains.
	seqKey = []byte{0}
	// lostKey stands as long as rows are missing that an earlier one had.
	lostKey = []byte{0, 1}
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

	mu      sync.RWMutex // guards the overlays and seq
	active  *memdb.DB
	spare   *memdb.DB // empty: made before it is needed
	frozen  []overlay // oldest first: on their way into leveldb
	seq     uint64    // the last record applied
	cuts    int       // cuts begun whose snapshot is not taken yet
	room    *sync.Cond
	scratch []byte // for one value
	closed  bool
	err     error // sticky failure of leveldb
	full    error // the disk was full when an overlay was to move; it is tried again
	trying  bool  // overlays are being moved in the background
	ballast ballast
	damage  damage

	flushMu sync.Mutex // held while overlays move into leveldb
	inDB    uint64     // last record in leveldb; written with flushMu and mu held
	flushes sync.WaitGroup

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

// Open opens the tables in dir, replaying what leveldb has not seen.
func Open(dir string) (*Store, error) { return OpenWith(dir, Options{}) }

// OpenWith is Open with options.
func OpenWith(dir string, opt Options) (*Store, error) {
	if opt.Disk == nil {
		opt.Disk = disk.Local
	}
	if opt.OverlaySize == 0 {
		opt.OverlaySize = overlaySize
	}
	s := &Store{dir: dir, opt: opt, ballast: ballast{fs: opt.Disk, dir: dir}, damage: damage{tell: opt.Damaged}}
	s.ballast.find()
	if err := s.removeDamaged(); err != nil {
		return nil, fmt.Errorf("index: %w", err)
	}
	s.active = s.newMem()
	s.room = sync.NewCond(&s.mu)
	db, seq, err := s.openIndex()
	if err != nil {
		return nil, err
	}
	if s.rebuilt, err = db.Has(lostKey, nil); err != nil {
		_ = db.Close()
		return nil, fmt.Errorf("index: %w", err)
	}
	s.db, s.inDB, s.seq = db, seq, seq
	first := uint64(0)
	where := journal.Options{Disk: opt.Disk, SegmentSize: opt.SegmentSize, After: seq, Yield: s.ballast.yield}
	s.journal, err = journal.Open(filepath.Join(dir, "journal"), where, func(n uint64, payload []byte) error {
		if first == 0 {
			first = n
			if err := s.begin(n); err != nil {
				return err
			}
		}
		return s.replay(n, payload)
	})
	if err == nil {
		err = s.join(seq, first)
	}
	if err != nil {
		_ = s.db.Close()
		return nil, fmt.Errorf("state in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) indexDir() string { return filepath.Join(s.dir, "index") }

func (s *Store) newMem() *memdb.DB {
	return memdb.New(comparer.DefaultComparer, int(s.opt.OverlaySize+s.opt.OverlaySize/4))
}

// indexOptions are those of leveldb.
func (s *Store) indexOptions() *opt.Options {
	return &opt.Options{
		Filter:                 filter.NewBloomFilter(10),
		WriteBuffer:            s.writeBuffer(),
		BlockCacheCapacity:     16 << 20,
		CompactionTableSize:    4 << 20,
		OpenFilesCacheCapacity: 128,
		// Blocks in buffers of the pool count with all their memory, up to a
		// whole table: the cache would hold four of them.
		DisableBufferPool: true,
		// Overlays wait in memory anyhow; a burst of changes is not to wait for
		// compaction as well, nor to be compacted again and again while it lasts.
		CompactionL0Trigger:    8,
		CompactionTotalSize:    32 << 20,
		WriteL0SlowdownTrigger: 24,
		WriteL0PauseTrigger:    40,
	}
}

// openIndex opens leveldb. One that is damaged is removed: it is only an index.
func (s *Store) openIndex() (*index, uint64, error) {
	for attempt := 0; ; attempt++ {
		db, err := s.openDB()
		var seq uint64
		if err == nil {
			if seq, err = readSeq(db); err == nil {
				return db, seq, nil
			}
			_ = db.Close()
		}
		if isFull(err) && s.ballast.yield() {
			continue
		}
		if attempt > 0 || isBusy(err) || isFull(err) {
			return nil, 0, fmt.Errorf("index: %w", err)
		}
		if err := s.opt.Disk.RemoveAll(s.indexDir()); err != nil {
			return nil, 0, fmt.Errorf("index: %w", err)
		}
	}
}

func readSeq(db *index) (uint64, error) {
	b, err := db.Get(seqKey, nil)
	if errors.Is(err, leveldb.ErrNotFound) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	if len(b) != 8 {
		return 0, errors.New("bad sequence number")
	}
	return binary.BigEndian.Uint64(b), nil
}

// begin takes note, before anything gets into leveldb, that the journal begins
// with record first: if leveldb is new and the journal is not, rows are missing.
func (s *Store) begin(first uint64) error {
	if s.inDB > 0 || first <= 1 {
		return nil
	}
	s.rebuilt = true
	if err := s.db.Put(lostKey, nil, &opt.WriteOptions{Sync: true}); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	return nil
}

// replay applies one record of the journal that leveldb does not have.
func (s *Store) replay(n uint64, payload []byte) error {
	if n <= s.inDB {
		return nil
	}
	b, err := Decode(payload)
	if err != nil {
		return fmt.Errorf("record %d: %w", n, err)
	}
	if err := s.apply(b, s.active); err != nil {
		return err
	}
	s.seq = n
	if used(s.active) > int(s.opt.OverlaySize) {
		s.freeze()
		return s.flushFrozen(len(s.frozen))
	}
	return nil
}

// join checks that leveldb, which held all up to record had, and the journal,
// which begins with record first, join on. If not, the index is made anew from
// all that the journal holds.
func (s *Store) join(had, first uint64) error {
	lagging := first > had+1
	leading := had >= s.journal.Next()
	if had == 0 || !lagging && !leading {
		return nil
	}
	if s.journal.Next() == 1 {
		return fmt.Errorf("%w: it is empty, and the index knows of %d records", journal.ErrDamaged, had)
	}
	if err := s.db.Close(); err != nil {
		return err
	}
	if err := s.opt.Disk.RemoveAll(s.indexDir()); err != nil {
		return err
	}
	if err := s.journal.Close(); err != nil {
		return err
	}
	fresh, err := OpenWith(s.dir, s.opt)
	if err != nil {
		return err
	}
	s.db, s.journal, s.inDB, s.seq = fresh.db, fresh.journal, fresh.inDB, fresh.seq
	s.active, s.frozen, s.rebuilt = fresh.active, fresh.frozen, fresh.rebuilt
	return nil
}

// Rebuilt reports whether the index had to be made anew from a journal that
// does not reach back to the beginning: what it held from before is missing. It
// stays so, over ends of the process and of the power, until Restored is told.
func (s *Store) Rebuilt() bool { return s.rebuilt }

// Restored says that the batches which bring back what a lost index held are
// applied.
func (s *Store) Restored() error {
	if err := s.Sync(); err != nil {
		return err
	}
	if err := s.db.Delete(lostKey, &opt.WriteOptions{Sync: true}); err != nil {
		return fmt.Errorf("index: %w", err)
	}
	s.rebuilt = false
	return nil
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
	seq, err := s.journal.Append(b.buf, b.freeing)
	if err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.apply(b, s.active); err != nil {
		s.err = err // journal and memory differ: nothing more may be promised
		return 0, err
	}
	s.seq = seq
	if used(s.active) > int(s.opt.OverlaySize) {
		s.freeze()
		s.flushSoon()
	}
	return seq, nil
}

// waitForRoom returns when the overlays may grow.
func (s *Store) waitForRoom() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.waiting() > overlayMax*int(s.opt.OverlaySize) && s.err == nil && !s.closed {
		if s.full != nil {
			s.flushSoon()
			return s.full
		}
		s.room.Wait()
	}
	if s.closed {
		return ErrClosed
	}
	return errors.Join(s.err, s.damage.err())
}

// waiting is the size of all overlays; s.mu is held.
func (s *Store) waiting() int {
	n := used(s.active)
	for _, o := range s.frozen {
		n += used(o.mem)
	}
	return n
}

// used is the memory that an overlay's rows take, those that were overwritten
// included: it keeps them until it ends.
func used(mem *memdb.DB) int { return mem.Capacity() - mem.Free() }

// freeze sets the active overlay aside; s.mu is held, or nobody else is there.
func (s *Store) freeze() {
	s.frozen = append(s.frozen, overlay{s.active, s.seq})
	s.active, s.spare = s.spare, nil
	if s.active == nil {
		s.active = s.newMem()
	}
}

// flushSoon moves frozen overlays into leveldb in the background; s.mu is held.
// While a cut waits for its snapshot, the cut does it.
func (s *Store) flushSoon() {
	if s.cuts > 0 || s.closed || s.trying {
		return
	}
	n := len(s.frozen)
	s.trying = s.full != nil // once at a time
	s.flushes.Go(func() {
		defer s.tried()
		s.flushMu.Lock()
		defer s.flushMu.Unlock()
		s.mu.RLock()
		n = min(n, len(s.frozen))
		stop := s.cuts > 0
		s.mu.RUnlock()
		if !stop {
			_ = s.flushFrozen(n) // the failure is kept in s.err
		}
	})
}

func (s *Store) tried() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trying = false
}

// flushFrozen moves the n oldest overlays into leveldb; s.flushMu is held, or
// nobody else is there.
func (s *Store) flushFrozen(n int) error {
	for range n {
		s.mu.RLock()
		if len(s.frozen) == 0 {
			s.mu.RUnlock()
			return nil
		}
		o := s.frozen[0]
		s.mu.RUnlock()
		// The journal first: after power loss leveldb must never know more
		// than the journal does.
		var err error
		if s.journal != nil {
			err = s.journal.Sync()
		}
		if err == nil {
			err = s.moveOverlay(o)
		}
		s.mu.Lock()
		switch {
		case isFull(err):
			s.full = fmt.Errorf("index: %w", err)
		case err != nil:
			s.err = err
		default:
			s.frozen = s.frozen[1:]
			s.inDB, s.full = o.seq, nil
		}
		s.room.Broadcast()
		s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// moveOverlay writes an overlay into leveldb; when the disk is full, after the
// ballast was given up for it. s.flushMu is held, or nobody else is there.
func (s *Store) moveOverlay(o overlay) error {
	s.mu.RLock()
	failed := s.full != nil
	s.mu.RUnlock()
	if !failed {
		err := s.writeOverlay(o)
		if !isFull(err) {
			return err
		}
	}
	if err := s.afterFull(); err != nil {
		return err
	}
	return s.writeOverlay(o)
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

// Compact gives back the room that deleted rows of a table took. It may take long;
// nobody waits for it.
func (s *Store) Compact(table byte) error {
	s.flushMu.Lock()
	s.mu.Lock()
	stop := s.cuts > 0 || s.closed
	if !stop && s.active.Len() > 0 {
		s.freeze()
	}
	n := len(s.frozen)
	s.mu.Unlock()
	var err error
	if !stop {
		err = s.flushFrozen(n)
	}
	s.flushMu.Unlock()
	if stop || err != nil {
		return err
	}
	s.mu.RLock()
	db := s.db
	s.mu.RUnlock()
	return s.indexError(db.CompactRange(util.Range{Start: []byte{table}, Limit: []byte{table + 1}}))
}

// Kept is the number of the first record that the journal keeps.
func (s *Store) Kept() uint64 { return s.journal.First() }

// Droppable is how much room Forget would give back, in bytes.
func (s *Store) Droppable(seq uint64) int64 { return s.journal.Droppable(seq) }

// Forget drops journal records below seq. The caller has made sure that, should
// the index be lost, what they said can be had from elsewhere; Forget itself
// makes sure that leveldb has them, on the disk.
func (s *Store) Forget(seq uint64) error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.mu.Lock()
	if s.cuts > 0 {
		s.mu.Unlock()
		return nil // a commit is being cut: another time
	}
	if s.active.Len() > 0 {
		s.freeze()
	}
	n := len(s.frozen)
	s.mu.Unlock()
	if err := s.flushFrozen(n); err != nil {
		return err
	}
	sync := leveldb.MakeBatch(32)
	sync.Put(seqKey, binary.BigEndian.AppendUint64(nil, s.inDB))
	if err := s.db.Write(sync, &opt.WriteOptions{Sync: true}); err != nil {
		return s.indexError(err)
	}
	return s.journal.DropBefore(min(seq, s.inDB+1))
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
	s.flushes.Wait() // what was found damaged in the end is noted
	return err
}
