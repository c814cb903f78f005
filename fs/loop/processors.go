package loop

import (
	"bytes"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// processors knows where threads run, and moves the one that asks.
type processors struct {
	proc int         // the directory /proc
	all  unix.CPUSet // where this process may run
}

// newProcessors is nil where nothing can be moved or known.
func newProcessors() *processors {
	var p processors
	if unix.SchedGetaffinity(0, &p.all) != nil || p.all.Count() < 2 {
		return nil
	}
	var err error
	if p.proc, err = unix.Open("/proc", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	return &p
}

func (p *processors) close() {
	if p != nil {
		_ = unix.Close(p.proc)
	}
}

// of is the processor on which a thread runs or ran last; negative if that is
// not known.
func (p *processors) of(thread uint32) int {
	fd, err := unix.Openat(p.proc, strconv.FormatUint(uint64(thread), 10)+"/stat", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	var b [1024]byte // the line is shorter
	n, _ := unix.Read(fd, b[:])
	return processorOf(b[:max(n, 0)])
}

// processorOf reads the processor from a line of /proc/PID/stat. The second word
// is a name in parentheses that may have anything in it.
func processorOf(stat []byte) int {
	const afterName = 39 - 2 // the processor is the 39th word
	words := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(words) < afterName {
		return -1
	}
	n, err := strconv.Atoi(string(words[afterName-1]))
	if err != nil {
		return -1
	}
	return n
}

// move has this thread go to a processor, without binding it there.
func (p *processors) move(to int) (done bool) {
	if !p.all.IsSet(to) {
		return false
	}
	var one unix.CPUSet
	one.Set(to)
	// Both calls are to be about the same thread, and nothing may inherit the first.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return setAffinity(&one) && setAffinity(&p.all)
}

func setAffinity(s *unix.CPUSet) (done bool) {
	_, _, errno := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(*s), uintptr(unsafe.Pointer(s)))
	return errno == 0
}

// here is the processor on which this thread runs; negative if that is not known.
func here() int {
	var n uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&n)), 0, 0); errno != 0 {
		return -1
	}
	return int(n)
}
