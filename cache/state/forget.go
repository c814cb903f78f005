package state

import (
	"encoding/binary"
	"errors"

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
	n, full := s.setAside()
	s.mu.Unlock()
	if err := errors.Join(s.flushFrozen(n), full); err != nil {
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

// Compact has the room given back that deleted rows of a table took, and done told how
// that ended, from another goroutine. It may take long: while rows of the table are
// written, leveldb begins again and again. Nobody waits for it, and Close ends it. While it
// goes on, another call for the table does nothing.
func (s *Store) Compact(table byte, done func(error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.compacting[table] || s.closed {
		return
	}
	s.compacting[table] = true
	s.compactions.Go(func() {
		err := s.compact(table)
		s.mu.Lock()
		s.compacting[table] = false
		s.mu.Unlock()
		done(err)
	})
}

func (s *Store) compact(table byte) error {
	if err := s.flushForCompact(); err != nil {
		return err
	}
	s.mu.RLock()
	db := s.db
	s.mu.RUnlock()
	return s.indexError(db.CompactRange(util.Range{Start: []byte{table}, Limit: []byte{table + 1}}))
}

// errCutting says that a commit is being cut: what is deleted now stays for its view.
var errCutting = errors.New("a view is being taken")

// flushForCompact moves all that was deleted into leveldb.
func (s *Store) flushForCompact() error {
	s.flushMu.Lock()
	defer s.flushMu.Unlock()
	s.mu.Lock()
	switch {
	case s.closed:
		s.mu.Unlock()
		return ErrClosed
	case s.cuts > 0:
		s.mu.Unlock()
		return errCutting
	}
	n, full := s.setAside()
	s.mu.Unlock()
	return errors.Join(s.flushFrozen(n), full)
}

// setAside freezes the active overlay too, for n to move. After several that did not, it
// says why instead: each attempt would leave one more behind. s.mu is held.
func (s *Store) setAside() (n int, full error) {
	switch {
	case s.full != nil && len(s.frozen) >= overlayMax:
		full = s.full
	case s.active.Len() > 0:
		s.freeze()
	}
	return len(s.frozen), full
}
