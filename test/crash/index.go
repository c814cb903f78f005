package crash

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/syndtr/goleveldb/leveldb/storage"

	"skep/cache/disk"
)

// index is leveldb's storage in a directory of any disk; it flushes what
// leveldb's own storage of files does.
type index struct {
	fs  disk.FS
	dir string
}

func openIndex(fs disk.FS) func(dir string) (storage.Storage, error) {
	return func(dir string) (storage.Storage, error) { return &index{fs, dir}, fs.Mkdir(dir) }
}

type unlocked struct{}

func (unlocked) Unlock() {}

func (x *index) Lock() (storage.Locker, error)    { return unlocked{}, nil }
func (x *index) Log(string)                       {}
func (x *index) Close() error                     { return nil }
func (x *index) path(fd storage.FileDesc) string  { return filepath.Join(x.dir, fd.String()) }
func (x *index) Remove(fd storage.FileDesc) error { return x.fs.Remove(x.path(fd)) }
func (x *index) Rename(from, to storage.FileDesc) error {
	return x.fs.Rename(x.path(from), x.path(to))
}

// SetMeta implements storage.Storage.
func (x *index) SetMeta(fd storage.FileDesc) error {
	current := filepath.Join(x.dir, "CURRENT")
	tmp := fmt.Sprintf("%s.%d", current, fd.Num)
	f, err := x.fs.Open(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(fd.String()+"\n"), 0)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return errors.Join(x.fs.Rename(tmp, current), x.fs.SyncDir(x.dir))
}

// GetMeta implements storage.Storage.
func (x *index) GetMeta() (storage.FileDesc, error) {
	b, err := disk.ReadFile(x.fs, filepath.Join(x.dir, "CURRENT"))
	if err != nil {
		return storage.FileDesc{}, err
	}
	fd := storage.FileDesc{Type: storage.TypeManifest}
	if _, err := fmt.Sscanf(string(b), "MANIFEST-%d\n", &fd.Num); err != nil {
		return fd, &storage.ErrCorrupted{Err: err}
	}
	if _, err := x.fs.Stat(x.path(fd)); err != nil {
		return fd, &storage.ErrCorrupted{Fd: fd, Err: err}
	}
	return fd, nil
}

// List implements storage.Storage.
func (x *index) List(ft storage.FileType) ([]storage.FileDesc, error) {
	names, err := x.fs.Names(x.dir)
	var out []storage.FileDesc
	for _, name := range names {
		if fd, ok := parse(name); ok && fd.Type&ft != 0 {
			out = append(out, fd)
		}
	}
	return out, err
}

func parse(name string) (fd storage.FileDesc, ok bool) {
	var tail string
	if n, _ := fmt.Sscanf(name, "%d.%s", &fd.Num, &tail); n == 2 {
		fd.Type = map[string]storage.FileType{"log": storage.TypeJournal, "ldb": storage.TypeTable, "tmp": storage.TypeTemp}[tail]
		return fd, fd.Type != 0
	}
	n, _ := fmt.Sscanf(name, "MANIFEST-%d%s", &fd.Num, &tail)
	fd.Type = storage.TypeManifest
	return fd, n == 1
}

// Open implements storage.Storage.
func (x *index) Open(fd storage.FileDesc) (storage.Reader, error) {
	f, err := x.fs.Open(x.path(fd), os.O_RDONLY)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = os.ErrNotExist
		}
		return nil, err
	}
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return struct {
		*io.SectionReader
		io.Closer
	}{io.NewSectionReader(f, 0, st.Size), f}, nil
}

// Create implements storage.Storage.
func (x *index) Create(fd storage.FileDesc) (storage.Writer, error) {
	f, err := x.fs.Open(x.path(fd), os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return nil, err
	}
	return &indexFile{OffsetWriter: io.NewOffsetWriter(f, 0), File: f, x: x}, nil
}

type indexFile struct {
	*io.OffsetWriter
	disk.File
	x *index
}

// Sync implements storage.Syncer. The file's name is flushed, too: that ext4 and
// its like do so is what leveldb counts on, and no matter of ours.
func (f *indexFile) Sync() error { return errors.Join(f.File.Sync(), f.x.fs.SyncDir(f.x.dir)) }
