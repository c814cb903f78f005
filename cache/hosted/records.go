package hosted

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"skep/chunker/group"
)

// PutRecord keeps a checked slot record, given in its signed form, instead of
// the one that was there under this key; from brought it. When PutRecord
// returns, the record is durable.
func (s *Store) PutRecord(key group.SlotKey, word []byte, from group.PeerKey) error {
	b := encodeWord(recordMagic, recordFile{From: from, Record: word})
	if err := s.writeFile(recordName(key), b, &s.recordsSync); err != nil {
		return fmt.Errorf("slot record: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.used += int64(len(b)) - s.records[key]
	s.records[key] = int64(len(b))
	return nil
}

// Record returns the signed record kept under a key, and who brought it, or
// fs.ErrNotExist. A damaged one is removed and counts as absent.
func (s *Store) Record(key group.SlotKey) (word []byte, from group.PeerKey, err error) {
	s.mu.Lock()
	_, ok := s.records[key]
	s.mu.Unlock()
	if !ok {
		return nil, group.PeerKey{}, fs.ErrNotExist
	}
	b, err := s.root.ReadFile(recordName(key))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, group.PeerKey{}, fmt.Errorf("slot record: %w", err)
	}
	var f recordFile
	if err == nil {
		err = decodeWord(b, recordMagic, maxRecordFile, &f)
	}
	if err != nil {
		_ = s.DropRecord(key)
		return nil, group.PeerKey{}, fmt.Errorf("slot record: %w: %w", fs.ErrNotExist, err)
	}
	return f.Record, f.From, nil
}

// Records returns the keys of the records kept, in no order.
func (s *Store) Records() []group.SlotKey {
	s.mu.Lock()
	defer s.mu.Unlock()
	keys := make([]group.SlotKey, 0, len(s.records))
	for k := range s.records {
		keys = append(keys, k)
	}
	return keys
}

// DropRecord forgets the record under a key.
func (s *Store) DropRecord(key group.SlotKey) error {
	s.mu.Lock()
	s.used -= s.records[key]
	delete(s.records, key)
	s.mu.Unlock()
	if err := s.root.Remove(recordName(key)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("slot record: %w", err)
	}
	return nil
}

func recordName(key group.SlotKey) string {
	return path.Join(recordsDir, hex.EncodeToString(key[:]))
}

// scanRecords takes the records on disk into the index.
func (s *Store) scanRecords() error {
	entries, err := s.list(recordsDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		var key group.SlotKey
		n, err := hex.Decode(key[:], []byte(e.Name()))
		if err != nil || n != len(key) || len(e.Name()) != 2*len(key) {
			continue // not ours
		}
		fi, err := e.Info()
		if err != nil {
			s.left = append(s.left, fmt.Errorf("slot record: %w", err))
			continue
		}
		if !fi.Mode().IsRegular() || fi.Size() > maxRecordFile {
			s.clear(recordsDir, []string{e.Name()})
			continue
		}
		s.records[key] = fi.Size()
		s.used += fi.Size()
	}
	return nil
}
