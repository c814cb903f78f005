package state

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/storage"

	"skep/cache/disk"
	"skep/cache/journal"
)

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
	if err == nil && first == 0 { // it has no record
		first = s.journal.First()
		err = s.begin(first)
	}
	if err == nil {
		err = s.join(seq, first)
	}
	if err != nil {
		_ = s.db.Close()
		s.flushes.Wait() // damage is noted
		return nil, fmt.Errorf("state in %s: %w", dir, err)
	}
	return s, nil
}

func (s *Store) indexDir() string { return filepath.Join(s.dir, "index") }

// indexOptions are those of leveldb.
func (s *Store) indexOptions(readOnly bool) *opt.Options {
	return &opt.Options{
		ReadOnly:               readOnly,
		Filter:                 filter.NewBloomFilter(10),
		WriteBuffer:            s.writeBuffer(),
		BlockCacheCapacity:     16 << 20,
		CompactionTableSize:    4 << 20,
		OpenFilesCacheCapacity: 128,
		// Another manifest in the same run would have the numbers of before.
		MaxManifestFileSize: 1 << 40,
		// Blocks in buffers of the pool count with all their memory, up to a
		// whole table: the cache would hold four of them.
		DisableBufferPool: true,
		// A transaction that cannot begin keeps a lock: see index.
		DisableLargeBatchTransaction: true,
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
				s.rebuilt, err = db.Has(lostKey, nil)
			}
			if err == nil {
				return db, seq, nil
			}
			_ = db.Close()
		}
		if attempt > 0 || isPassing(err) {
			return nil, 0, fmt.Errorf("index: %w", err)
		}
		if err := s.removeIndex(); err != nil {
			return nil, 0, fmt.Errorf("index: %w", err)
		}
	}
}

func readSeq(db leveldb.Reader) (uint64, error) {
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
	return s.indexError(s.db.writeFlushed(func(b *leveldb.Batch) { b.Put(lostKey, nil) }))
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
	if err := s.prepare(b); err != nil {
		return err
	}
	s.apply(b)
	s.seq = n
	if used(s.active) > int(s.opt.OverlaySize) {
		s.freeze()
		if err := s.flushFrozen(len(s.frozen)); !isFull(err) {
			return err
		}
	}
	return nil // what a full disk keeps from leveldb waits, as it did before
}

// join checks that the journal, which begins with record first, joins on to
// leveldb, which held all up to record had. If not, the index is made anew from all
// that the journal holds.
func (s *Store) join(had, first uint64) error {
	if had == 0 || first <= had+1 {
		return nil
	}
	_ = s.db.Close() // it is not needed any more
	if err := s.removeIndex(); err != nil {
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
	s.active, s.frozen, s.full, s.rebuilt = fresh.active, fresh.frozen, fresh.full, fresh.rebuilt
	return nil
}

// Check looks whether the journal of the tables in dir, which nobody has open, is all
// there, and changes nothing. It fails with journal.ErrDamaged where Open would.
func Check(dir string) error {
	return journal.Check(filepath.Join(dir, "journal"), indexed(dir))
}

// indexed is up to which record the index of the tables in dir has everything; 0 if
// it would be made anew.
func indexed(dir string) uint64 {
	s := &Store{dir: dir}
	if _, err := os.Stat(s.damagedMark()); err == nil {
		return 0
	}
	stor, err := storage.OpenFile(s.indexDir(), true)
	if err != nil {
		return 0
	}
	defer stor.Close()
	db, err := leveldb.Open(oneLog{untorn{stor}}, &opt.Options{ReadOnly: true, ErrorIfMissing: true})
	if err != nil {
		return 0
	}
	defer db.Close()
	seq, _ := readSeq(db) // what cannot be read is made anew
	return seq
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
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	if err := s.db.writeFlushed(func(b *leveldb.Batch) { b.Delete(lostKey) }); err != nil {
		return s.indexError(err)
	}
	s.rebuilt = false
	return nil
}
