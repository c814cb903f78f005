// Package backing keeps the files that hold content on this device.
//
// A backing file is a plain, sparse file with a number of its own; which inode
// it belongs to, the inode's row says. Truncating an inode gives it a new
// number, so that content which a commit is still reading, or which power loss
// could bring back, is never overwritten. The content is in clear.
package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// fanout is the number of directories that the files are spread over.
const fanout = 256

// Store is a directory of backing files, safe for concurrent use.
type Store struct {
	dir  string
	next atomic.Uint64 // the last number given out
}

// Open opens the store in dir.
func Open(dir string) (*Store, error) {
	for i := range fanout {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o700); err != nil {
			return nil, fmt.Errorf("backing files: %w", err)
		}
	}
	s := &Store{dir: dir}
	err := s.Each(func(n uint64) error {
		s.next.Store(max(s.next.Load(), n))
		return nil
	})
	return s, err
}

// Last is the highest number given out so far. Open fixes it to the highest in
// the store.
func (s *Store) Last() uint64 { return s.next.Load() }

func (s *Store) path(n uint64) string {
	return filepath.Join(s.dir, fmt.Sprintf("%02x", n%fanout), strconv.FormatUint(n, 16))
}

// Create makes a new, empty backing file and returns its number.
func (s *Store) Create() (uint64, *os.File, error) {
	n := s.next.Add(1)
	f, err := os.OpenFile(s.path(n), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, nil, fmt.Errorf("backing file %x: %w", n, err)
	}
	return n, f, nil
}

// Open opens a backing file for reading and writing. Its absence is
// fs.ErrNotExist.
func (s *Store) Open(n uint64) (*os.File, error) {
	f, err := os.OpenFile(s.path(n), os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("backing file %x: %w", n, err)
	}
	return f, nil
}

// Stat returns what the local filesystem says of a backing file.
func (s *Store) Stat(n uint64) (unix.Stat_t, error) {
	var st unix.Stat_t
	if err := unix.Stat(s.path(n), &st); err != nil {
		return st, fmt.Errorf("backing file %x: %w", n, err)
	}
	return st, nil
}

// Remove deletes a backing file; one that is not there is no error.
func (s *Store) Remove(n uint64) error {
	if err := os.Remove(s.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("backing file %x: %w", n, err)
	}
	return nil
}

// SyncName makes the existence of backing file n survive power loss.
func (s *Store) SyncName(n uint64) error {
	d, err := os.Open(filepath.Dir(s.path(n)))
	if err != nil {
		return fmt.Errorf("backing file %x: %w", n, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("backing file %x: %w", n, err)
	}
	return nil
}

// Scratch returns a file without a name, for content that ends with the
// process.
func (s *Store) Scratch() (*os.File, error) {
	fd, err := unix.Open(s.dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), "scratch"), nil
	}
	f, err := os.CreateTemp(s.dir, "scratch")
	if err != nil {
		return nil, fmt.Errorf("backing files: %w", err)
	}
	_ = os.Remove(f.Name())
	return f, nil
}

// Each calls fn with the number of every backing file.
func (s *Store) Each(fn func(n uint64) error) error {
	for i := range fanout {
		d, err := os.Open(filepath.Join(s.dir, fmt.Sprintf("%02x", i)))
		if err != nil {
			return fmt.Errorf("backing files: %w", err)
		}
		names, err := d.Readdirnames(-1)
		_ = d.Close()
		if err != nil {
			return fmt.Errorf("backing files: %w", err)
		}
		for _, name := range names {
			n, err := strconv.ParseUint(name, 16, 64)
			if err != nil {
				continue // not ours
			}
			if err := fn(n); err != nil {
				return err
			}
		}
	}
	return nil
}

// Disk reports the size and the room of the disk below the store, in bytes.
func (s *Store) Disk() (total, avail int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, 0, fmt.Errorf("backing files: %w", err)
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}
