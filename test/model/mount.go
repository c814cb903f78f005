package model

import (
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mount does operations in a mounted directory, by the calls that programs make.
type Mount struct {
	Root string
	// Maintain does what no call of a program does: Sync, as the kernel tells
	// no drive of it, and from Commit on.
	Maintain func(Op) error

	handles map[int]mounted
}

// mounted is an open file, or a mapping.
type mounted struct {
	fd    int // of a mapping, only to look at it
	flags int
	pages []byte // that are mapped; nil: a file
}

func (m *Mount) path(p string) string { return filepath.Join(m.Root, p) }

// Do implements Target.
func (m *Mount) Do(op Op) Result {
	data, err := m.do(op)
	if errno := errnoOf(err); errno != 0 {
		return Result{Errno: errno}
	}
	return Result{Data: data}
}

func (m *Mount) do(op Op) ([]byte, error) {
	path, to := m.path(op.Path), m.path(op.To)
	switch op.Kind {
	case Create:
		fd, err := unix.Open(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_CLOEXEC, 0o644)
		if err != nil {
			return nil, err
		}
		return nil, unix.Close(fd)
	case Mkdir:
		return nil, unix.Mkdir(path, 0o755)
	case Symlink:
		return nil, unix.Symlink(op.To, path)
	case Mkfifo:
		return nil, unix.Mkfifo(path, 0o644)
	case Link:
		return nil, unix.Linkat(unix.AT_FDCWD, path, unix.AT_FDCWD, to, 0)
	case Unlink:
		return nil, unix.Unlink(path)
	case Rmdir:
		return nil, unix.Rmdir(path)
	case Rename, NoReplace, Exchange:
		flags := map[Kind]uint{NoReplace: unix.RENAME_NOREPLACE, Exchange: unix.RENAME_EXCHANGE}[op.Kind]
		return nil, unix.Renameat2(unix.AT_FDCWD, path, unix.AT_FDCWD, to, flags)
	case Chmod:
		return nil, unix.Chmod(path, op.Mode)
	case Touch:
		ts := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: op.Len}}
		return nil, unix.UtimesNanoAt(unix.AT_FDCWD, path, ts, 0)
	case SetXattr:
		return nil, unix.Setxattr(path, op.Name, op.Value(), 0)
	case RemoveXattr:
		return nil, unix.Removexattr(path, op.Name)
	case SyncDir:
		return nil, m.syncDir(op.Path)
	case Sync, Commit, Evict, Forget, Restart:
		return nil, m.Maintain(op)
	case Open, Close, WriteTo, ReadFrom, TruncateOpen, PunchOpen, StoreTo, FsyncOpen, Tmpfile, LinkOpen:
		return m.onHandle(op)
	case Map:
		return nil, m.mapFile(op)
	case StoreMapped, LoadMapped, Unmap:
		return m.onMapping(op)
	}
	return m.onFile(op)
}

// isFile says what an open of what is no regular file says; a pipe would wait.
func (m *Mount) isFile(path string) error {
	var st unix.Stat_t
	if err := unix.Lstat(m.path(path), &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return nil
	case unix.S_IFDIR:
		return unix.EISDIR
	case unix.S_IFLNK:
		return unix.ELOOP
	}
	return unix.ENXIO
}

func (m *Mount) syncDir(path string) error {
	switch err := m.isFile(path); err {
	case nil, unix.ENXIO:
		return unix.ENOTDIR
	case unix.EISDIR:
	default:
		return err
	}
	fd, err := unix.Open(m.path(path), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsync(fd)
}

// onFile opens a file for one operation.
func (m *Mount) onFile(op Op) ([]byte, error) {
	if err := m.isFile(op.Path); err != nil {
		return nil, err
	}
	if op.Kind == Truncate {
		return nil, unix.Truncate(m.path(op.Path), op.Len)
	}
	flags, ok := map[Kind]int{Read: os.O_RDONLY, Copy: os.O_RDONLY, Append: os.O_WRONLY | os.O_APPEND, Empty: os.O_WRONLY | os.O_TRUNC,
		Fsync: os.O_RDONLY, Fdatasync: os.O_RDONLY}[op.Kind]
	if !ok {
		flags = os.O_RDWR
	}
	flags |= op.Flags
	fd, err := unix.Open(m.path(op.Path), flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	data, err := m.content(mounted{fd: fd, flags: flags}, op)
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	return data, err
}

// content does an operation on what is in an open file.
func (m *Mount) content(h mounted, op Op) ([]byte, error) {
	switch op.Kind {
	case Write, WriteTo, Append:
		return nil, write(h, op.Off, op.Bytes())
	case Store, StoreTo:
		return nil, store(h.fd, op)
	case TruncateOpen:
		return nil, unix.Ftruncate(h.fd, op.Len)
	case Punch, PunchOpen:
		return nil, unix.Fallocate(h.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, op.Off, op.Len)
	case Zero:
		return nil, unix.Fallocate(h.fd, unix.FALLOC_FL_ZERO_RANGE, op.Off, op.Len)
	case Allocate:
		return nil, unix.Fallocate(h.fd, 0, op.Off, op.Len)
	case Read, ReadFrom:
		return read(h.fd, op.Off, op.Len)
	case Copy:
		return nil, m.copy(h.fd, op)
	case Fsync, FsyncOpen:
		return nil, unix.Fsync(h.fd)
	case Fdatasync:
		return nil, unix.Fdatasync(h.fd)
	}
	return nil, nil // opening it was all
}

func write(h mounted, off int64, p []byte) error {
	p = aligned(p)
	for len(p) > 0 {
		var n int
		var err error
		if h.flags&os.O_APPEND != 0 {
			n, err = unix.Write(h.fd, p)
		} else {
			n, err = unix.Pwrite(h.fd, p, off)
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func read(fd int, off, size int64) ([]byte, error) {
	p := aligned(make([]byte, size))
	for at := 0; ; {
		n, err := unix.Pread(fd, p[at:], off+int64(at))
		if at += max(n, 0); n <= 0 || at == len(p) || at%block != 0 {
			return p[:at], err
		}
	}
}

// aligned returns the same bytes where O_DIRECT takes them from.
func aligned(p []byte) []byte {
	b := make([]byte, len(p)+block)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (block - 1))
	return b[skip : skip+copy(b[skip:], p)]
}

// store writes through a shared mapping, and unmaps it, which hands over what was
// written.
func store(fd int, op Op) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	end := min(op.Off+op.Len, st.Size)
	if op.Off >= end {
		return nil
	}
	start := op.Off &^ (block - 1)
	mapping, err := unix.Mmap(fd, start, int(end-start), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = put(mapping[op.Off-start:], op.Bytes())
	if err == nil && op.Kind == StoreTo {
		err = unix.Msync(mapping, unix.MS_SYNC)
	}
	if uerr := unix.Munmap(mapping); err == nil {
		err = uerr
	}
	if err == nil { // munmap does not tell that what it wrote did not get there
		err = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER)
	}
	return err
}

func (m *Mount) copy(from int, op Op) error {
	if err := m.isFile(op.To); err != nil {
		return err
	}
	to, err := unix.Open(m.path(op.To), os.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	var st unix.Stat_t
	err = unix.Fstat(from, &st) // it grows, if it is the same
	var src int64
	for dst, left := op.Off, int(min(op.Len, st.Size)); left > 0 && err == nil; {
		var n int
		if n, err = unix.CopyFileRange(from, &src, to, &dst, left, 0); n <= 0 {
			break
		}
		left -= n
	}
	if cerr := unix.Close(to); err == nil {
		err = cerr
	}
	return err
}

func (m *Mount) onHandle(op Op) ([]byte, error) {
	h, open := m.handles[op.Handle]
	switch {
	case op.Kind == Open && open:
		return nil, nil
	case op.Kind == Open:
		return nil, m.open(op)
	case op.Kind == Tmpfile:
		return nil, m.tmpfile(op, open)
	case !open:
		return nil, unix.EBADF
	case op.Kind == Close:
		delete(m.handles, op.Handle)
		return nil, unix.Close(h.fd)
	case op.Kind == LinkOpen:
		return nil, unix.Linkat(h.fd, "", unix.AT_FDCWD, m.path(op.To), unix.AT_EMPTY_PATH)
	case op.Kind == StoreTo && h.flags&3 != os.O_RDWR:
		return nil, unix.EACCES // what mmap says, where there is something to map
	case op.Kind == TruncateOpen && h.flags&3 == os.O_RDONLY:
		return nil, unix.EINVAL
	}
	return m.content(h, op)
}

func (m *Mount) keep(i int, h mounted) {
	if m.handles == nil {
		m.handles = map[int]mounted{}
	}
	m.handles[i] = h
}

func (m *Mount) open(op Op) error {
	if err := m.isFile(op.Path); err != nil && (err != unix.ENOENT || op.Flags&os.O_CREATE == 0) {
		return err
	}
	fd, err := unix.Open(m.path(op.Path), op.Flags|unix.O_CLOEXEC, 0o644)
	if err == nil {
		m.keep(op.Handle, mounted{fd: fd, flags: op.Flags})
	}
	return err
}

func (m *Mount) tmpfile(op Op, open bool) error {
	switch err := m.isFile(op.Path); {
	case err == nil || err == unix.ENXIO:
		return unix.ENOTDIR
	case err == unix.ELOOP:
		return unix.ENOENT // it is followed
	case err != unix.EISDIR:
		return err
	case open:
		return nil
	}
	fd, err := unix.Open(m.path(op.Path), os.O_RDWR|unix.O_TMPFILE|unix.O_CLOEXEC, 0o644)
	if err == nil {
		m.keep(op.Handle, mounted{fd: fd, flags: os.O_RDWR})
	}
	return err
}

// CloseAll closes what is open.
func (m *Mount) CloseAll() {
	for _, h := range m.handles {
		if h.pages != nil {
			_ = unix.Munmap(h.pages)
		}
		_ = unix.Close(h.fd)
	}
	clear(m.handles)
}

// List implements Target.
func (m *Mount) List() (Listing, error) {
	l := Listing{}
	return l, m.list("", l)
}

func (m *Mount) list(path string, l Listing) error {
	var st unix.Stat_t
	full := m.path(path)
	if err := unix.Lstat(full, &st); err != nil {
		return err
	}
	e := Entry{File: st.Ino, Mode: st.Mode, Nlink: uint32(st.Nlink), Size: st.Size, Mtime: st.Mtim.Sec}
	var err error
	if e.Xattrs, err = xattrs(full); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		e.Size = 0
		err = m.listDir(path, l)
	case unix.S_IFLNK:
		e.Target, err = os.Readlink(full)
	case unix.S_IFREG:
		e.Content, err = os.ReadFile(full)
	}
	l[path] = e
	return err
}

func (m *Mount) listDir(path string, l Listing) error {
	kids, err := os.ReadDir(m.path(path))
	if err != nil {
		return err
	}
	for _, k := range kids {
		if err := m.list(Join(path, k.Name()), l); err != nil {
			return err
		}
	}
	return nil
}

// xattrs returns the attributes that users set.
func xattrs(path string) (map[string]string, error) {
	b := make([]byte, 4096)
	n, err := unix.Llistxattr(path, b)
	if err != nil {
		return nil, err
	}
	var out map[string]string
	for name := range strings.SplitSeq(string(b[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") {
			continue
		}
		v := make([]byte, 64<<10)
		n, err := unix.Lgetxattr(path, name, v)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string]string{}
		}
		out[name] = string(v[:n])
	}
	return out, nil
}
