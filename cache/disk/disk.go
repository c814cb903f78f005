package disk

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// File is an open file, safe for concurrent use.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	Flusher
	// Truncate sets the size.
	Truncate(size int64) error
	// Allocate is fallocate(2).
	Allocate(mode uint32, off, n int64) error
	// Seek finds data or a hole: whence is unix.SEEK_DATA or unix.SEEK_HOLE.
	Seek(off int64, whence int) (int64, error)
	Stat() (unix.Stat_t, error)
	// Reread has later reads of n bytes at off, or of all from there on if n is 0,
	// tell what is on the disk, where it does not wait in memory to be written:
	// after a flush that failed, memory has what the disk never got.
	Reread(off, n int64) error
	// Unseen does something to the file and leaves its modification time as it
	// was. Should the process end in the midst of it, the time may have changed.
	Unseen(do func() error) error
	// Shared reports whether somebody else has the file open or mapped, also the
	// same program by another descriptor. An error says that nobody can tell.
	Shared() (bool, error)
	// Fd is what the kernel knows the file by.
	Fd() uintptr
}

// Flusher is what can be made to survive power loss. A flush that failed may
// have lost anything written since the last good one, whatever later ones say.
type Flusher interface {
	// Sync flushes content, size and times.
	Sync() error
	// Datasync flushes content, and as much as is needed to read it.
	Datasync() error
}

// FS is a local filesystem. Errors are those of package os.
type FS interface {
	// Open opens a file; flags are those of os.OpenFile, and unix.O_TMPFILE
	// with the name of a directory.
	Open(name string, flags int) (File, error)
	Stat(name string) (unix.Stat_t, error)
	// Names lists a directory, in any order.
	Names(dir string) ([]string, error)
	// Mkdir makes a directory and those above it, for the owner alone.
	Mkdir(dir string) error
	Rename(from, to string) error
	Remove(name string) error
	RemoveAll(name string) error
	SyncDir(dir string) error
	// SyncAll flushes everything on the filesystem that a directory is on.
	SyncAll(dir string) error
	// Room is the size of the filesystem that a directory is on, and what is
	// left, in bytes.
	Room(dir string) (total, avail int64, err error)
}

// ReadFile returns the content of a file.
func ReadFile(fs FS, name string) ([]byte, error) {
	f, err := fs.Open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size)
	n, err := f.ReadAt(b, 0)
	if err == io.EOF {
		err = nil
	}
	return b[:n], err
}

// Local is the filesystem of this machine.
var Local FS = local{}

type local struct{}

type localFile struct{ *os.File }

func (local) Open(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, 0o600)
	if err != nil {
		return nil, err
	}
	return localFile{f}, nil
}

func (local) Stat(name string) (st unix.Stat_t, err error) {
	if err := unix.Stat(name, &st); err != nil {
		return st, &os.PathError{Op: "stat", Path: name, Err: err}
	}
	return st, nil
}

func (local) Names(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return d.Readdirnames(-1)
}

func (local) Mkdir(dir string) error       { return os.MkdirAll(dir, 0o700) }
func (local) Rename(from, to string) error { return os.Rename(from, to) }
func (local) Remove(name string) error     { return os.Remove(name) }
func (local) RemoveAll(name string) error  { return os.RemoveAll(name) }

func (local) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func (local) SyncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := unix.Syncfs(int(d.Fd())); err != nil {
		return &os.PathError{Op: "syncfs", Path: dir, Err: err}
	}
	return nil
}

func (local) Room(dir string) (total, avail int64, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, 0, &os.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Blocks) * st.Bsize, int64(st.Bavail) * st.Bsize, nil
}

func (f localFile) Datasync() error {
	conn, err := f.SyscallConn() // keeps the descriptor, also when somebody closes the file meanwhile
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.Fdatasync(int(fd)) }); err != nil {
		return err
	}
	return failed
}

func (f localFile) Allocate(mode uint32, off, n int64) error {
	return unix.Fallocate(int(f.Fd()), mode, off, n)
}

func (f localFile) Seek(off int64, whence int) (int64, error) {
	return unix.Seek(int(f.Fd()), off, whence)
}

func (f localFile) Unseen(do func() error) error {
	before, err := f.Stat()
	if err != nil {
		return err
	}
	err = do()
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, before.Mtim}
	return errors.Join(err, unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), times, 0))
}

// Shared asks for a lease to write, which the kernel gives only on a file that nobody
// else has.
func (f localFile) Shared() (bool, error) {
	_, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK)
	if err == unix.EAGAIN {
		return true, nil
	}
	if err == nil {
		_, err = unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return false, err
}

func (f localFile) Reread(off, n int64) error {
	return unix.Fadvise(int(f.Fd()), off, n, unix.FADV_DONTNEED)
}

func (f localFile) Stat() (st unix.Stat_t, err error) {
	err = unix.Fstat(int(f.Fd()), &st)
	return st, err
}
