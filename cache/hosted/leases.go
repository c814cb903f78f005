package hosted

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"

	"skep/chunker/group"
)

// Holdings returns the ids of the groups that the store has a lease or shards
// of, in no order.
func (s *Store) Holdings() []group.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := make([]group.ID, 0, len(s.groups))
	for id := range s.groups {
		ids = append(ids, id)
	}
	return ids
}

// Holding returns the account of a group, or false when the store does not have
// it. Word is nil when its lease was lost.
func (s *Store) Holding(id group.ID) (group.Holding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.groups[id]
	if !ok {
		return group.Holding{}, false
	}
	return h.Holding, true
}

// Admit takes a checked lease, given parsed and signed, into the account of its
// group, which is made when it is new; it removes the shards of packs that are
// now dead. When Admit returns, lease and slot are durable. A group that has
// shards in another slot gives group.ErrInvalid, a full disk syscall.ENOSPC.
func (s *Store) Admit(l group.Lease, word []byte, slot uint8) (group.Holding, error) {
	turn := s.leaseTurn(l.Group)
	turn.Lock()
	defer turn.Unlock()
	h, known := s.lookup(l.Group)
	if !known {
		h = newHolding(s, l.Group)
	}
	next := s.merged(h, l, word, slot)
	if next.Slot != slot {
		return group.Holding{}, fmt.Errorf("group %v is held in slot %d, not %d: %w", l.Group, next.Slot, slot, group.ErrInvalid)
	}
	if err := s.writeLease(h, next, known); err != nil {
		return group.Holding{}, fmt.Errorf("lease of group %v: %w", l.Group, err)
	}
	out, dead := s.adopt(h, next)
	return out, s.removeFiles(dead)
}

// leaseTurn is the lock under which the lease of a group changes.
func (s *Store) leaseTurn(id group.ID) *sync.Mutex { return &s.leases[id[0]%uint8(len(s.leases))] }

func (s *Store) lookup(id group.ID) (*holding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.groups[id]
	return h, ok
}

// merged is the account with one more lease. A group without shards moves to
// the slot of the lease.
func (s *Store) merged(h *holding, l group.Lease, word []byte, slot uint8) group.Holding {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := h.Merge(l, append([]byte(nil), word...))
	if next.Held.Count() == 0 {
		next.Slot = slot
	}
	return next
}

func (s *Store) writeLease(h *holding, next group.Holding, known bool) error {
	if !known {
		if err := s.root.Mkdir(h.dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		if err := s.groupsSync.Flush(); err != nil {
			return err
		}
	}
	f := leaseFile{Slot: next.Slot, Dead: next.Dead, Last: next.Last, Lease: next.Word}
	return s.writeFile(path.Join(h.dir, leaseName), encodeWord(leaseMagic, f), h.sync)
}

// adopt makes next the account of its group but for what is held, which may
// have grown meanwhile, and returns the files of packs that are dead.
func (s *Store) adopt(h *holding, next group.Holding) (group.Holding, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.groups[h.ID] = h
	h.Slot, h.Dead, h.Last, h.Lease, h.Word = next.Slot, next.Dead, next.Last, next.Lease, next.Word
	var files []string
	for number := range uint16(len(h.lengths)) {
		if h.Dead.Has(number) && h.Held.Has(number) {
			files = append(files, s.release(h, number))
		}
	}
	return h.Holding, files
}

func (s *Store) removeFiles(files []string) error {
	var errs []error
	for _, f := range files {
		if err := s.root.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Clear removes the shards of a group and keeps its lease, so that packs once
// called dead stay so.
func (s *Store) Clear(id group.ID) error {
	turn := s.leaseTurn(id)
	turn.Lock()
	defer turn.Unlock()
	s.mu.Lock()
	h, ok := s.groups[id]
	var files []string
	if ok {
		for number := range uint16(len(h.lengths)) {
			if h.Held.Has(number) {
				files = append(files, s.release(h, number))
			}
		}
	}
	s.mu.Unlock()
	return s.removeFiles(files)
}

// Drop removes all that the store has of a group.
func (s *Store) Drop(id group.ID) error {
	turn := s.leaseTurn(id)
	turn.Lock()
	defer turn.Unlock()
	s.mu.Lock()
	h, ok := s.groups[id]
	if !ok {
		s.mu.Unlock()
		return nil
	}
	for number := range uint16(len(h.lengths)) {
		_ = s.release(h, number)
	}
	delete(s.groups, id)
	s.mu.Unlock()
	if err := s.root.RemoveAll(h.dir); err != nil {
		return fmt.Errorf("drop of group %v: %w", id, err)
	}
	return nil
}
