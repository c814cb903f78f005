package state

import (
	"encoding/binary"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/util"
)

// Kept is the number of the first record that the journal keeps.
func (s *Store) Kept() uint64 { return s.journal.First() }

// Droppable is how much room Forget would give back, in bytes.
func (s *Store) Droppable(seq uint64) int64 { return s.journal.Droppable(seq) }

// Rotate returns the number that the next record will have, with which the journal can
// be made to begin: see Forget. If that can still be done with the one that an earlier
// call returned, begun, it returns this; 0 is for none.
func (s *Store) Rotate(begun uint64) (first uint64, err error) { return s.journal.Rotate(begun) }

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
	err := s.db.writeFlushed(func(b *leveldb.Batch) {
		b.Put(seqKey, binary.BigEndian.AppendUint64(nil, s.inDB))
	})
	if err != nil {
		return s.indexError(err)
	}
	return s.journal.DropBefore(min(seq, s.inDB+1))
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
