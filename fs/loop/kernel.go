package loop

import (
	"errors"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// Knows reports whether the kernel agreed to one of the capabilities that it was asked for.
func (l *Loop) Knows(flag uint64) bool { return l.caps&flag != 0 }

// RegisterBacking makes an open file known to the kernel, so that it can read
// and write it by itself. The id serves in answers to open requests.
func (l *Loop) RegisterBacking(fd int) (id int32, err error) {
	m := fuse.BackingMap{Fd: int32(fd)}
	err = l.device.use(func(dev int) error {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), backingOpen, uintptr(unsafe.Pointer(&m)))
		id = int32(n)
		return errnoError(errno)
	})
	return id, err
}

// UnregisterBacking ends an id. Files that are open with it stay so.
func (l *Loop) UnregisterBacking(id int32) error {
	return l.device.use(func(dev int) error {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(dev), backingClose, uintptr(unsafe.Pointer(&id)))
		return errnoError(errno)
	})
}

// FUSE_DEV_IOC_BACKING_OPEN and FUSE_DEV_IOC_BACKING_CLOSE.
const (
	backingOpen  = 0x4010e501
	backingClose = 0x4004e502
)

// InvalidateInode has the kernel forget attributes and, if off is not negative,
// n bytes of content from off on (all if n is 0), and first write what was stored
// into it by mappings. It must not be called from within a request, but for one during
// which nothing is held that others need: it may wait for one. What the kernel does not know is no
// error.
func (l *Loop) InvalidateInode(node uint64, off, n int64) error {
	b := make([]byte, headerSize+int(unsafe.Sizeof(fuse.NotifyInvalInodeOut{})))
	*at[fuse.NotifyInvalInodeOut](b[headerSize:]) = fuse.NotifyInvalInodeOut{Ino: node, Off: off, Length: n}
	return l.notify(fuse.NOTIFY_INVAL_INODE, b)
}

// notify sends b, whose header is still to be written.
func (l *Loop) notify(code int32, b []byte) error {
	*at[fuse.OutHeader](b) = fuse.OutHeader{Length: uint32(len(b)), Status: -code}
	err := l.device.use(func(dev int) error {
		_, err := unix.Write(dev, b)
		return err
	})
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// errnoError is errno as an error, nil for success.
func errnoError(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}
