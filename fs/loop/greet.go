package loop

import (
	"fmt"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// The protocol that is spoken: that of Linux 5.4 at least, which all structures
// here are sized for.
const (
	major       = 7
	minMinor    = 31
	knownMinor  = 45
	initRequest = 26
)

// greet reads the kernel's first request and answers it.
func (l *Loop) greet() error {
	w := &worker{l: l}
	if err := w.allocate(l.opt.MaxIO); err != nil {
		return err
	}
	defer w.free()
	if _, err := l.firstRequest(w.request); err != nil {
		return err
	}
	in := at[fuse.InitIn](w.request)
	if in.Opcode != initRequest || in.Major != major || in.Minor < minMinor {
		return fmt.Errorf("it speaks version %d.%d of the protocol, %d.%d is needed", in.Major, in.Minor, major, minMinor)
	}
	out := at[fuse.InitOut](w.answer[headerSize:])
	*out = l.terms(in)
	l.caps = out.Flags64()
	if errno := w.send(in.Unique, fuse.OK, int(unsafe.Sizeof(*out))); errno != 0 {
		return errno
	}
	return nil
}

// firstRequest waits for a request.
func (l *Loop) firstRequest(b []byte) (int, error) {
	for {
		l.device.wait()
		n, errno := l.device.read(b)
		switch errno {
		case 0:
			return n, nil
		case unix.EAGAIN, unix.EINTR, unix.ENOENT:
		default:
			return 0, errno
		}
	}
}

// terms is how we wish to speak with the kernel.
func (l *Loop) terms(in *fuse.InitIn) fuse.InitOut {
	o := l.opt
	flags := in.Flags64()&o.Capabilities | fuse.CAP_INIT_EXT
	return fuse.InitOut{
		Major: major, Minor: min(knownMinor, in.Minor),
		MaxReadAhead: in.MaxReadAhead,
		Flags:        uint32(flags), Flags2: uint32(flags >> 32),
		MaxBackground: uint16(o.MaxBackground), CongestionThreshold: uint16(o.MaxBackground * 3 / 4),
		MaxWrite: uint32(o.MaxIO), MaxPages: uint16((o.MaxIO-1)/pageSize + 1),
		TimeGran:      1,
		MaxStackDepth: uint32(o.MaxStackDepth),
	}
}

// at is what b begins with, as a T.
func at[T any](b []byte) *T {
	_ = b[unsafe.Sizeof(*new(T))-1]
	return (*T)(unsafe.Pointer(unsafe.SliceData(b)))
}
