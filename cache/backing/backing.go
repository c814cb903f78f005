package backing

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// fanout is the number of directories that the files are spread over.
const fanout = 256

// Store is a directory of backing files, safe for concurrent use.
type Store struct {
	fs   disk.FS
	dir  string
	next atomic.Uint64 // the last number given out
	old  uint64        // the last that an earlier run may have given out, as far as is known

	mu   sync.Mutex // guards made
	made bool       // a folder was made, and is not known to survive power loss
}

// Open opens the store in dir. Before anything else, Start or Find says where its
// numbers go on.
func Open(dir string) (*Store, error) { return OpenOn(disk.Local, dir) }

// OpenOn opens the store in a directory of a filesystem.
func OpenOn(fs disk.FS, dir string) (*Store, error) {
	s := &Store{fs: fs, dir: dir}
	err := s.fs.Mkdir(dir)
	if err == nil {
		err = s.fs.SyncDir(dir) // folders that an earlier run made
	}
	if err == nil {
		err = s.fs.SyncDir(filepath.Dir(dir))
	}
	if err != nil {
		return nil, fmt.Errorf("backing files: %w", err)
	}
	return s, nil
}

// Start makes the numbers go on behind last, from earlier runs: which of them are
// in use is not looked for. Should there be some behind it, they are passed over.
func (s *Store) Start(last uint64) {
	s.old = last
	s.next.Store(last)
}

// Find looks for the highest number in use and makes the numbers go on behind it.
func (s *Store) Find() error {
	last := uint64(0)
	err := s.Each(func(n uint64) error {
		last = max(last, n)
		return nil
	})
	s.Start(last)
	return err
}

// Last is the highest number given out so far.
func (s *Store) Last() uint64 { return s.next.Load() }

// IsOld reports whether a backing file comes from an earlier run.
func (s *Store) IsOld(n uint64) bool { return n <= s.old }

// Folder is which of the store's folders a file is in. Each goes through them
// in ascending order.
func Folder(n uint64) int { return int(n % fanout) }

func (s *Store) folder(n uint64) string { return filepath.Join(s.dir, fmt.Sprintf("%02x", n%fanout)) }

func (s *Store) path(n uint64) string {
	return filepath.Join(s.folder(n), strconv.FormatUint(n, 16))
}

// create opens a file that need not be there, nor its folder.
func (s *Store) create(n uint64, flags int) (disk.File, error) {
	f, err := s.fs.Open(s.path(n), flags|os.O_RDWR|os.O_CREATE)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	s.mu.Lock()
	s.made = true
	err = s.fs.Mkdir(s.folder(n))
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return s.fs.Open(s.path(n), flags|os.O_RDWR|os.O_CREATE)
}

// syncFolders makes all folders survive power loss.
func (s *Store) syncFolders() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.made {
		return nil
	}
	err := s.fs.SyncDir(s.dir)
	s.made = err != nil
	return err
}

// Create makes a new, empty backing file and returns its number.
func (s *Store) Create() (uint64, disk.File, error) {
	n := s.next.Add(1)
	f, err := s.create(n, os.O_EXCL)
	for errors.Is(err, fs.ErrExist) {
		n = s.next.Add(1)
		f, err = s.create(n, os.O_EXCL)
	}
	if err != nil {
		return 0, nil, fmt.Errorf("backing file %x: %w", n, err)
	}
	return n, f, nil
}

// Open opens a backing file for reading and writing. Its absence is
// fs.ErrNotExist.
func (s *Store) Open(n uint64) (disk.File, error) {
	f, err := s.fs.Open(s.path(n), os.O_RDWR)
	if err != nil {
		return nil, fmt.Errorf("backing file %x: %w", n, err)
	}
	return f, nil
}

// Stat returns what the local filesystem says of a backing file.
func (s *Store) Stat(n uint64) (unix.Stat_t, error) {
	st, err := s.fs.Stat(s.path(n))
	if err != nil {
		return st, fmt.Errorf("backing file %x: %w", n, err)
	}
	return st, nil
}

// Reread has later reads of a backing file tell what is on the disk: see
// disk.File.
func (s *Store) Reread(n uint64) error {
	f, err := s.Open(n)
	if err != nil {
		return err
	}
	return errors.Join(f.Reread(0, 0), f.Close())
}

// Remove deletes a backing file; one that is not there is no error.
func (s *Store) Remove(n uint64) error {
	if err := s.fs.Remove(s.path(n)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("backing file %x: %w", n, err)
	}
	return nil
}

// SyncName makes the existence of backing file n survive power loss.
func (s *Store) SyncName(n uint64) error {
	err := s.syncFolders()
	if err == nil {
		err = s.fs.SyncDir(s.folder(n))
	}
	if err != nil {
		return fmt.Errorf("backing file %x: %w", n, err)
	}
	return nil
}

// SyncAll makes the content and the existence of all backing files survive power
// loss, in one flush of the whole disk.
func (s *Store) SyncAll() error {
	if err := s.fs.SyncAll(s.dir); err != nil {
		return fmt.Errorf("backing files: %w", err)
	}
	return nil
}

// Renew makes backing file n anew, empty, in place of one that is gone.
func (s *Store) Renew(n uint64) (disk.File, error) {
	f, err := s.create(n, os.O_TRUNC)
	if err != nil {
		return nil, fmt.Errorf("backing file %x: %w", n, err)
	}
	return f, nil
}

// Scratch returns a file without a name, for content that ends with the
// process.
func (s *Store) Scratch() (disk.File, error) {
	f, err := s.fs.Open(s.dir, unix.O_TMPFILE|os.O_RDWR)
	if err == nil {
		return f, nil
	}
	name := filepath.Join(s.dir, fmt.Sprintf("scratch%x", s.next.Add(1)))
	if f, err = s.fs.Open(name, os.O_RDWR|os.O_CREATE|os.O_EXCL); err != nil {
		return nil, fmt.Errorf("backing files: %w", err)
	}
	_ = s.fs.Remove(name)
	return f, nil
}

// Each calls fn with the number of every backing file.
func (s *Store) Each(fn func(n uint64) error) error {
	for i := range fanout {
		names, err := s.fs.Names(s.folder(uint64(i)))
		if errors.Is(err, fs.ErrNotExist) {
			continue // nothing was ever put into it
		}
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
	if total, avail, err = s.fs.Room(s.dir); err != nil {
		return 0, 0, fmt.Errorf("backing files: %w", err)
	}
	return total, avail, nil
}
