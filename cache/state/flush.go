package state

import (
	"errors"
	"fmt"

	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/comparer"
	"github.com/syndtr/goleveldb/leveldb/memdb"
)

func (s *Store) newMem() *memdb.DB {
	return memdb.New(comparer.DefaultComparer, int(s.opt.OverlaySize+s.opt.OverlaySize/4))
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
// While a cut waits for its view, the cut does it.
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
			_ = s.flushFrozen(n) // the failure is kept
		}
	})
}

// tryAgain has an index that is closed, as who reads was told by err, and could not be
// opened anew for want of memory or files, opened in the background, if it can be by now.
func (s *Store) tryAgain(err error) {
	if !errors.Is(err, leveldb.ErrClosed) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full != nil {
		s.flushSoon()
	}
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
		case isShort(err):
			s.full = err
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
// ballast was given up for it. Where leveldb takes nothing more, it is opened anew
// before. s.flushMu is held, or nobody else is there.
func (s *Store) moveOverlay(o overlay) error {
	s.mu.RLock()
	why := s.full
	s.mu.RUnlock()
	if !isFull(why) && (why == nil || s.db.files.err() == nil) {
		why = s.writeOverlay(o)
		if !isFull(why) {
			return why
		}
	}
	if isFull(why) {
		s.ballast.yield()
	}
	if err := s.reopen(); err != nil {
		return err
	}
	return s.writeOverlay(o)
}
