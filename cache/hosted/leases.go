package hosted

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"syscall"

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
// group, which is made when it is new, with from as who brought it; it removes
// the shards of packs that are now dead. When Admit returns, lease and slot are
// durable; one that says nothing new costs nothing. A group that has shards in
// another slot gives group.ErrInvalid, a full disk syscall.ENOSPC.
func (s *Store) Admit(l group.Lease, word []byte, slot uint8, from group.PeerKey) (group.Holding, error) {
	if s.out[l.Group] {
		return group.Holding{}, fmt.Errorf("group %v could not be read when the store was opened: %w", l.Group, errOut)
	}
	turn := s.leaseTurn(l.Group)
	turn.Lock()
	defer turn.Unlock()
	h, known := s.lookup(l.Group)
	if !known {
		h = newHolding(s, l.Group)
		h.From = from
	} else if err := s.recall(h); err != nil {
		return group.Holding{}, fmt.Errorf("lease of group %v: %w", l.Group, err)
	}
	next, changed := s.merged(h, l, word, slot)
	defer s.settled(h)
	if next.Slot != slot {
		return group.Holding{}, fmt.Errorf("group %v is held in slot %d, not %d: %w", l.Group, next.Slot, slot, group.ErrInvalid)
	}
	if !changed {
		return next, nil
	}
	err := s.writeLease(h, next, known)
	if errors.Is(err, syscall.ENOSPC) && known {
		// Nobody wants the dead: they make room for the word that says so.
		if err = s.removeShards(h, next.Dead); err == nil {
			err = s.writeLease(h, next, known)
		}
	}
	if err != nil {
		return group.Holding{}, fmt.Errorf("lease of group %v: %w", l.Group, err)
	}
	out, dead := s.adopt(h, next)
	return out, s.removeFiles(dead)
}

var errOut = errors.New("it is left as it is")

// recall takes in the lease of a group that has none, if it can be read by now: when the
// store was opened, the disk may have failed. The caller has its leaseTurn.
func (s *Store) recall(h *holding) error {
	if now, _ := s.Holding(h.ID); now.Word != nil {
		return nil
	}
	was := newHolding(s, h.ID)
	if err := s.readLease(was); err != nil && !isUnreadable(err) {
		return err
	}
	s.mu.Lock()
	next, known := h.Holding, was.Word != nil && was.Slot == h.Slot
	if known {
		h.From = was.From
	}
	s.mu.Unlock()
	if !known {
		return nil
	}
	next.Dead, next.Last, next.Lease, next.Word = was.Dead, was.Last, was.Lease, was.Word
	_, dead := s.adopt(h, next)
	return s.removeFiles(dead)
}

// leaseTurn is the lock under which the lease of a group changes.
func (s *Store) leaseTurn(id group.ID) *sync.Mutex { return &s.leases[id[0]%uint8(len(s.leases))] }

func (s *Store) lookup(id group.ID) (*holding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.groups[id]
	return h, ok
}

// merged is the account with one more lease, and whether that makes it another
// one. A group without shards moves to the slot of the lease, and takes no
// shard until settled.
func (s *Store) merged(h *holding, l group.Lease, word []byte, slot uint8) (next group.Holding, changed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next = h.Merge(l, append([]byte(nil), word...))
	if h.empty() {
		next.Slot = slot
	}
	h.moving = next.Slot != h.Slot
	changed = h.moving || next.Dead != h.Dead || next.Last != h.Last || !bytes.Equal(next.Word, h.Word)
	return next, changed
}

// settled ends what merged or moveTo began.
func (s *Store) settled(h *holding) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h.moving = false
}

// move makes sure that a group which has no shard yet is in this slot, on disk too, and
// then does what is to be done before anybody can move it elsewhere.
func (s *Store) move(h *holding, slot uint8, then func() error) error {
	turn := s.leaseTurn(h.ID)
	turn.Lock()
	defer turn.Unlock()
	if err := s.moveTo(h, slot); err != nil {
		return err
	}
	return then()
}

// moveTo does what move says; the caller has the group's leaseTurn.
func (s *Store) moveTo(h *holding, slot uint8) error {
	s.mu.Lock()
	next, free := h.Holding, h.empty() && s.groups[h.ID] == h
	there := h.Slot == slot
	h.moving = free && !there
	s.mu.Unlock()
	defer s.settled(h)
	if there {
		return nil
	}
	if !free {
		return fmt.Errorf("group %v is held in slot %d, not %d: %w", h.ID, next.Slot, slot, group.ErrInvalid)
	}
	next.Slot = slot
	if err := s.writeLease(h, next, true); err != nil {
		return fmt.Errorf("lease of group %v: %w", h.ID, err)
	}
	s.adopt(h, next)
	return nil
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
	return s.writeFile(path.Join(h.dir, leaseName), encodeLease(&next), h.sync)
}

func encodeLease(h *group.Holding) []byte {
	return encodeWord(leaseMagic, leaseFile{Slot: h.Slot, Dead: h.Dead, Last: h.Last, Lease: h.Word, From: h.From})
}

// adopt makes next the account of its group but for what is held, which may
// have grown meanwhile, and returns the files of packs that are dead.
func (s *Store) adopt(h *holding, next group.Holding) (group.Holding, []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.groups[h.ID] != h {
		s.groups[h.ID] = h
		s.used += groupCost
	}
	h.Slot, h.Dead, h.Last, h.Lease, h.Word = next.Slot, next.Dead, next.Last, next.Lease, next.Word
	var files []string
	for number := range uint16(len(h.lengths)) {
		if h.Dead.Has(number) && h.Held.Has(number) {
			files = append(files, s.release(h, number))
		}
	}
	if h.Over() {
		h.lengths = nil // of many groups, this is all that they take in memory for long
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

// Release removes the shards that it names of a group that is held by leases of lower
// numbers alone, and keeps its lease. When it returns, they are gone for good. It gives
// fs.ErrNotExist for a group that the store does not have, group.ErrInvalid for one
// of which it has a newer lease, or none.
func (s *Store) Release(r group.Release) (group.Holding, error) {
	turn := s.leaseTurn(r.Group)
	turn.Lock()
	defer turn.Unlock()
	h, ok := s.lookup(r.Group)
	if !ok {
		return group.Holding{}, fmt.Errorf("release of group %v: %w", r.Group, fs.ErrNotExist)
	}
	if !h.Releases(r) { // under turn, nothing else changes leases
		return group.Holding{}, fmt.Errorf("release of group %v: below its lease: %w", r.Group, group.ErrInvalid)
	}
	err := s.removeShards(h, r.Packs)
	s.mu.Lock()
	defer s.mu.Unlock()
	return h.Holding, err
}

// removeShards removes the shards of some packs of a group, for good. The caller has
// its leaseTurn.
func (s *Store) removeShards(h *holding, packs group.Bitmap) error {
	var errs []error
	for number := range uint16(group.MaxPacks) {
		if !packs.Has(number) {
			continue
		}
		s.mu.Lock()
		errs = append(errs, s.delete(h, number))
		s.mu.Unlock()
	}
	return errors.Join(append(errs, h.sync.Flush())...)
}

// Drop removes all that the store has of a group, its lease last: shards that
// nobody wants are not left without the word that says so.
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
	var err error
	for number := range uint16(group.MaxPacks) {
		err = errors.Join(err, s.delete(h, number))
	}
	if err != nil {
		s.mu.Unlock()
		return fmt.Errorf("drop of group %v: %w", id, err)
	}
	delete(s.groups, id)
	s.used -= groupCost
	s.mu.Unlock()
	if err == nil {
		err = h.sync.Flush()
	}
	if err == nil {
		err = s.root.RemoveAll(h.dir)
	}
	if err != nil {
		return fmt.Errorf("drop of group %v: %w", id, err)
	}
	return nil
}
