package storetest

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"sync"
	"syscall"

	"skep/chunker/erasure"
	"skep/chunker/group"
)

// Memory is a holder's store without a disk: the smallest that keeps the
// contract.
type Memory struct {
	offer int64

	mu      sync.Mutex // guards the fields below
	used    int64
	groups  map[group.ID]*memoryGroup
	records map[group.SlotKey]memoryRecord
}

type memoryGroup struct {
	group.Holding
	shards map[uint16]memoryShard
}

type memoryShard struct {
	word, shard, outboard []byte
	root                  erasure.Root
}

type memoryRecord struct {
	word []byte
	from group.PeerKey
}

// NewMemory returns an empty store that offers so many bytes.
func NewMemory(offer int64) *Memory {
	return &Memory{offer: offer, groups: map[group.ID]*memoryGroup{}, records: map[group.SlotKey]memoryRecord{}}
}

// Room implements holder.Room.
func (s *Memory) Room() (offered, used int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offer, s.used
}

// Holdings implements holder.Leases.
func (s *Memory) Holdings() []group.ID {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []group.ID
	for id := range s.groups {
		ids = append(ids, id)
	}
	return ids
}

// Holding implements holder.Leases.
func (s *Memory) Holding(id group.ID) (group.Holding, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[id]
	if !ok {
		return group.Holding{}, false
	}
	return g.Holding, true
}

// Admit implements holder.Leases.
func (s *Memory) Admit(l group.Lease, word []byte, slot uint8, from group.PeerKey) (group.Holding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[l.Group]
	if !ok {
		g = &memoryGroup{Holding: group.Holding{ID: l.Group, From: from}, shards: map[uint16]memoryShard{}}
	}
	if g.Slot != slot && len(g.shards) > 0 {
		return group.Holding{}, fmt.Errorf("slot %d: %w", slot, group.ErrInvalid)
	}
	g.Holding = g.Merge(l, bytes.Clone(word))
	g.Slot = slot
	s.groups[l.Group] = g
	for number := range g.shards {
		if g.Dead.Has(number) {
			s.remove(g, number)
		}
	}
	return g.Holding, nil
}

func (s *Memory) remove(g *memoryGroup, number uint16) {
	s.used -= int64(len(g.shards[number].shard))
	delete(g.shards, number)
	g.Held.Remove(number)
}

// Release implements holder.Leases.
func (s *Memory) Release(r group.Release) (group.Holding, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[r.Group]
	switch {
	case !ok:
		return group.Holding{}, fs.ErrNotExist
	case !g.Releases(r):
		return group.Holding{}, group.ErrInvalid
	}
	s.empty(g, r.Packs)
	return g.Holding, nil
}

func (s *Memory) empty(g *memoryGroup, packs group.Bitmap) {
	for number := range g.shards {
		if packs.Has(number) {
			s.remove(g, number)
		}
	}
}

// Drop implements holder.Leases.
func (s *Memory) Drop(id group.ID) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g, ok := s.groups[id]; ok {
		s.empty(g, group.AllPacks)
	}
	delete(s.groups, id)
	return nil
}

// PutShard implements holder.Shards.
func (s *Memory) PutShard(m *group.Manifest, word []byte, slot uint8, shard io.Reader) error {
	held, err := s.place(m, word, slot)
	if held || err != nil {
		return err
	}
	b := make([]byte, m.ShardSize())
	if _, err := io.ReadFull(shard, b); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	outboard, root := erasure.Outboard(b)
	if root != m.Roots[slot] {
		return erasure.ErrProof
	}
	if held, err := s.place(m, word, slot); held || err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used+int64(len(b)) > s.offer {
		return syscall.ENOSPC
	}
	g, ok := s.groups[m.Group]
	if !ok {
		return fs.ErrNotExist
	}
	g.Class, g.Coding, g.Slot = m.Class, m.Coding, slot
	g.shards[m.Number] = memoryShard{word: bytes.Clone(word), shard: b, outboard: outboard, root: root}
	g.Held.Add(m.Number)
	s.used += int64(len(b))
	return nil
}

// place reports whether the shard is there, or why it may not be.
func (s *Memory) place(m *group.Manifest, word []byte, slot uint8) (held bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[m.Group]
	switch {
	case !ok:
		return false, fs.ErrNotExist
	case g.Dead.Has(m.Number), g.Slot != slot && len(g.shards) > 0, int(slot) >= len(m.Roots), g.Class != 0 && (g.Class != m.Class || g.Coding != m.Coding):
		return false, group.ErrInvalid
	}
	sh, held := g.shards[m.Number]
	if held && !bytes.Equal(sh.word, word) {
		return false, group.ErrInvalid
	}
	return held, nil
}

func (s *Memory) shard(id group.ID, number uint16) (memoryShard, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	g, ok := s.groups[id]
	if !ok || !g.Held.Has(number) {
		return memoryShard{}, fs.ErrNotExist
	}
	return g.shards[number], nil
}

// Manifest implements holder.Shards.
func (s *Memory) Manifest(id group.ID, number uint16) ([]byte, error) {
	sh, err := s.shard(id, number)
	return sh.word, err
}

// WriteSlice implements holder.Shards.
func (s *Memory) WriteSlice(w io.Writer, id group.ID, number uint16, offset, length int) error {
	sh, err := s.shard(id, number)
	if err != nil {
		return err
	}
	if offset < 0 || length <= 0 || length > len(sh.shard)-offset {
		return group.ErrInvalid
	}
	return erasure.WriteSlice(w, bytes.NewReader(sh.shard), sh.outboard, offset, length)
}

// WriteRange implements holder.Shards.
func (s *Memory) WriteRange(w io.Writer, id group.ID, number uint16, offset, length int) error {
	sh, err := s.shard(id, number)
	if err != nil {
		return err
	}
	if offset < 0 || length <= 0 || length > len(sh.shard)-offset {
		return group.ErrInvalid
	}
	_, err = w.Write(sh.shard[offset:][:length])
	return err
}

// WriteSamples implements holder.Shards.
func (s *Memory) WriteSamples(w io.Writer, id group.ID, number uint16, nonce erasure.Nonce, count int) error {
	sh, err := s.shard(id, number)
	if err != nil {
		return err
	}
	return erasure.WriteSamples(w, bytes.NewReader(sh.shard), sh.outboard, nonce, sh.root, count)
}

// Verify implements holder.Shards.
func (s *Memory) Verify(id group.ID, number uint16) error {
	sh, err := s.shard(id, number)
	if err != nil || erasure.RootOf(sh.shard) == sh.root {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if g, ok := s.groups[id]; ok {
		s.remove(g, number)
	}
	return fs.ErrNotExist
}

// VerifyLease implements holder.Leases.
func (s *Memory) VerifyLease(group.ID) error { return nil }

// Settle implements holder.Leases.
func (s *Memory) Settle(group.ID) error { return nil }

// PutRecord implements holder.Records.
func (s *Memory) PutRecord(key group.SlotKey, word []byte, from group.PeerKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += int64(len(word) - len(s.records[key].word))
	s.records[key] = memoryRecord{word: bytes.Clone(word), from: from}
	return nil
}

// Record implements holder.Records.
func (s *Memory) Record(key group.SlotKey) ([]byte, group.PeerKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.records[key]
	if !ok {
		return nil, group.PeerKey{}, fs.ErrNotExist
	}
	return r.word, r.from, nil
}

// Records implements holder.Records.
func (s *Memory) Records() []group.SlotKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	var keys []group.SlotKey
	for k := range s.records {
		keys = append(keys, k)
	}
	return keys
}

// DropRecord implements holder.Records.
func (s *Memory) DropRecord(key group.SlotKey) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used -= int64(len(s.records[key].word))
	delete(s.records, key)
	return nil
}
