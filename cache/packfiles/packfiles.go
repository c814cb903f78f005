// Package packfiles keeps the packs of metadata that this device wrote, sealed
// as they are at their holders: the newest commit can be read from them without
// any peer, and the tables be made anew.
package packfiles

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"skep/chunker/group"
)

// Store is a directory of packs, safe for concurrent use.
type Store struct{ dir string }

// Open opens the store in dir.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return &Store{dir}, nil
}

func (s *Store) path(id group.ID, n uint16) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%d", hex.EncodeToString(id[:]), n))
}

// Put keeps a pack; when it returns, it survives power loss.
func (s *Store) Put(id group.ID, n uint16, pack []byte) error {
	tmp, err := os.CreateTemp(s.dir, "new")
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	_, err = tmp.Write(pack)
	if err == nil {
		err = tmp.Sync()
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), s.path(id, n))
	}
	if err != nil {
		_ = os.Remove(tmp.Name())
		return fmt.Errorf("pack files: %w", err)
	}
	return s.syncDir()
}

func (s *Store) syncDir() error {
	d, err := os.Open(s.dir)
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	return nil
}

// ReadAt fills p from offset off of a pack. A pack that is not kept is
// fs.ErrNotExist; one that was cut short io.ErrUnexpectedEOF or io.EOF.
func (s *Store) ReadAt(id group.ID, n uint16, p []byte, off int64) error {
	f, err := os.Open(s.path(id, n))
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.ReadAt(p, off)
	return err
}

// Get returns a whole pack.
func (s *Store) Get(id group.ID, n uint16) ([]byte, error) { return os.ReadFile(s.path(id, n)) }

// Remove lets go of a pack; one that is not kept is no error.
func (s *Store) Remove(id group.ID, n uint16) error {
	if err := os.Remove(s.path(id, n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("pack files: %w", err)
	}
	return nil
}

// List calls fn for every pack that is kept.
func (s *Store) List(fn func(id group.ID, n uint16) error) error {
	names, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	for _, e := range names {
		hexID, num, ok := strings.Cut(e.Name(), "-")
		raw, err := hex.DecodeString(hexID)
		var n uint16
		if _, serr := fmt.Sscanf(num, "%d", &n); !ok || err != nil || serr != nil || len(raw) != 32 {
			continue
		}
		if err := fn(group.ID(raw), n); err != nil {
			return err
		}
	}
	return nil
}
