package loop

import (
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// cores is how many processors this process may use.
var cores = runtime.NumCPU()

// device is the descriptor through which the kernel speaks. Reading and waiting
// is for workers, which end before it is closed; the rest may come from anybody
// at any time.
type device struct {
	fd     int
	blocks atomic.Bool  // reading waits for a request
	mu     sync.RWMutex // held for reading while others than workers use fd
	closed bool
}

// block says whether reading is to wait for a request.
func (d *device) block(yes bool) {
	if d.blocks.Load() != yes && unix.SetNonblock(d.fd, !yes) == nil {
		d.blocks.Store(yes)
	}
}

// read reads one request, if there is one or reading waits for it. What it reads
// into lies outside of Go's memory.
func (d *device) read(b []byte) (int, unix.Errno) {
	n, _, errno := unix.Syscall(unix.SYS_READ, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	switch {
	case errno != 0:
		return 0, errno
	case n == 0: // a socket in the kernel's place was closed
		return 0, unix.ENODEV
	}
	return int(n), 0
}

// yield lets the rest of Go run, if its only thread is about to sleep.
func yield() {
	if runtime.GOMAXPROCS(0) == 1 {
		runtime.Gosched()
	}
}

// wait returns when there may be something to read.
func (d *device) wait() {
	yield()
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLIN}}, -1)
		if err != unix.EINTR {
			return
		}
	}
}

// write writes an answer.
func (d *device) write(b []byte) unix.Errno {
	_, _, errno := unix.Syscall(unix.SYS_WRITE, uintptr(d.fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
	return errno
}

// connected reports whether requests may come through it.
func (d *device) connected() bool {
	err := d.use(func(fd int) error {
		for {
			p := []unix.PollFd{{Fd: int32(fd)}} // errors are told without being asked for
			switch _, err := unix.Poll(p, 0); {
			case err == unix.EINTR:
				continue
			case err == nil && p[0].Revents != 0:
				return unix.ENOTCONN
			default:
				return err
			}
		}
	})
	return err == nil
}

// use calls f with the descriptor, unless it is closed.
func (d *device) use(f func(fd int) error) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return unix.ENOTCONN
	}
	return f(d.fd)
}

func (d *device) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	_ = unix.Close(d.fd)
}
