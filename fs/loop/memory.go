package loop

import (
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

const (
	pageSize   = 4096
	headerSize = int(unsafe.Sizeof(fuse.OutHeader{}))
	writeSize  = int(unsafe.Sizeof(fuse.WriteIn{}))
)

// allocate gets memory for requests and answers. It is not Go's, so that what
// is never touched costs nothing and what was touched is given back at the end;
// and it lies so that the data of writes and reads begin at a page.
func (w *worker) allocate(maxIO int) error {
	size := pageSize + maxIO
	m, err := unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	w.memory = m
	w.request = m[pageSize-writeSize : size : size]
	w.answer = m[size+pageSize-headerSize:]
	return nil
}

func (w *worker) free() { _ = unix.Munmap(w.memory) }
