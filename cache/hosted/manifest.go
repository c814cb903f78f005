package hosted

import (
	"errors"
	"fmt"
	"io"
	"io/fs"

	"skep/chunker/group"
	"skep/chunker/record"
)

// Manifest returns the signed manifest of a pack whose shard is held, or
// fs.ErrNotExist. It reads no more than that of the shard's file, unless that is damaged.
func (s *Store) Manifest(id group.ID, number uint16) ([]byte, error) {
	word, err := s.manifest(id, number)
	if err != nil {
		return nil, s.suspect(id, number, fmt.Errorf("manifest of pack %d of group %v: %w", number, id, err))
	}
	return word, nil
}

func (s *Store) manifest(id group.ID, number uint16) ([]byte, error) {
	s.mu.Lock()
	h, ok := s.groups[id]
	if !ok || !h.Held.Has(number) {
		s.mu.Unlock()
		return nil, fs.ErrNotExist
	}
	name := h.file(number)
	hd, cached := s.heads.get(id, number)
	s.mu.Unlock()
	if cached {
		return append([]byte(nil), hd.Manifest...), nil
	}
	word, m, err := s.peek(name)
	if err == nil && (m.Group != id || m.Number != number) {
		err = fmt.Errorf("%w: head of another shard", ErrDamaged)
	}
	return word, err
}

// manifest decodes the manifest, whose signature was checked when it came.
func (h *head) manifest() (group.Manifest, error) {
	var m group.Manifest
	if _, err := record.Parse(h.Manifest, group.MaxManifest, &m); err != nil {
		return m, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if !m.Coding.Valid(m.Class) || len(m.Roots) != int(m.Coding.N) || int(h.Slot) >= len(m.Roots) {
		return m, fmt.Errorf("%w: manifest", ErrDamaged)
	}
	return m, nil
}

// peek reads the manifest at the start of a shard's file.
func (s *Store) peek(name string) (word []byte, m group.Manifest, err error) {
	f, err := s.root.Open(name)
	if err != nil {
		return nil, group.Manifest{}, gone(err)
	}
	defer f.Close()
	b := make([]byte, headFixed+maxHead)
	n, err := f.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, group.Manifest{}, err
	}
	return peekManifest(b[:n])
}
