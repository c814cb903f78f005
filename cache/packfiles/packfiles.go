package packfiles

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"skep/cache/disk"
	"skep/chunker/group"
)

// Store is a directory of packs, safe for concurrent use.
type Store struct {
	fs     disk.FS
	dir    string
	writes atomic.Uint64 // begun, to tell those under way apart
	bytes  atomic.Int64  // of all packs
}

// Open opens the store in dir.
func Open(dir string) (*Store, error) { return OpenOn(disk.Local, dir) }

// OpenOn opens the store in a directory of a filesystem, and deletes what was
// being written when the process or the power went.
func OpenOn(fs disk.FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir}
	if err := s.prepare(); err != nil {
		return nil, fmt.Errorf("pack files: %w", err)
	}
	return s, nil
}

func (s *Store) prepare() error {
	if err := s.fs.Mkdir(s.dir); err != nil {
		return err
	}
	if err := s.fs.SyncDir(filepath.Dir(s.dir)); err != nil {
		return err
	}
	names, err := s.fs.Names(s.dir)
	for _, name := range names {
		if strings.HasPrefix(name, unfinished) {
			err = errors.Join(err, s.fs.Remove(filepath.Join(s.dir, name)))
		} else {
			s.bytes.Add(s.size(filepath.Join(s.dir, name)))
		}
	}
	return err
}

// Bytes is how much all packs take.
func (s *Store) Bytes() int64 { return s.bytes.Load() }

// size is the length of a file; 0 if it is not there.
func (s *Store) size(name string) int64 {
	st, err := s.fs.Stat(name)
	if err != nil {
		return 0
	}
	return st.Size
}

// unfinished begins the name of a pack that is being written.
const unfinished = "new"

func (s *Store) path(id group.ID, n uint16) string {
	return filepath.Join(s.dir, fmt.Sprintf("%s-%d", hex.EncodeToString(id[:]), n))
}

// Put keeps a pack; when it returns, it survives power loss.
func (s *Store) Put(id group.ID, n uint16, pack []byte) error {
	path := s.path(id, n)
	tmp := filepath.Join(s.dir, fmt.Sprint(unfinished, s.writes.Add(1)))
	old := s.size(path)
	err := s.write(tmp, pack)
	if err == nil {
		err = s.fs.Rename(tmp, path)
	}
	if err != nil {
		_ = s.fs.Remove(tmp)
		return fmt.Errorf("pack files: %w", err)
	}
	s.bytes.Add(int64(len(pack)) - old)
	if err := s.fs.SyncDir(s.dir); err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	return nil
}

func (s *Store) write(name string, b []byte) error {
	f, err := s.fs.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(b, 0)
	if err == nil {
		err = f.Sync()
	}
	return errors.Join(err, f.Close())
}

// Read returns length bytes from offset off of a pack. A pack that is not kept
// is fs.ErrNotExist; one that was cut short io.ErrUnexpectedEOF or io.EOF.
func (s *Store) Read(id group.ID, n uint16, off, length int) ([]byte, error) {
	f, err := s.fs.Open(s.path(id, n), os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p := make([]byte, length)
	_, err = f.ReadAt(p, int64(off))
	return p, err
}

// Get returns a whole pack.
func (s *Store) Get(id group.ID, n uint16) ([]byte, error) {
	return disk.ReadFile(s.fs, s.path(id, n))
}

// Remove lets go of a pack; one that is not kept is no error.
func (s *Store) Remove(id group.ID, n uint16) error {
	size := s.size(s.path(id, n))
	err := s.fs.Remove(s.path(id, n))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	s.bytes.Add(-size)
	return nil
}

// List calls fn for every pack that is kept.
func (s *Store) List(fn func(id group.ID, n uint16) error) error {
	names, err := s.fs.Names(s.dir)
	if err != nil {
		return fmt.Errorf("pack files: %w", err)
	}
	for _, name := range names {
		hexID, num, ok := strings.Cut(name, "-")
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
