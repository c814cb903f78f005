package hosted

import (
	"errors"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Shards are written once and seldom read, so what is read and written of them
// in bulk goes past the page cache: filling it costs more than all else that a
// holder does with them, and drives out what somebody needs.

// directRead is from how many bytes on a range is read past the page cache.
// Shorter ones are often neighbours of the next, which the kernel reads ahead.
const directRead = 256 << 10

// openDirect opens a file past the page cache. It returns nil where that cannot
// be.
func (s *Store) openDirect(name string, flags int) *os.File {
	f, err := s.root.OpenFile(name, flags|unix.O_DIRECT, 0)
	if err != nil {
		return nil
	}
	return f
}

// isAligned reports whether p may be read or written at offset past the page
// cache: in memory as in the file it has to be whole pages.
func isAligned(p []byte, offset int64) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%page == 0 && offset%page == 0 && len(p)%page == 0
}

// shardWriter writes whole pages past the page cache, if it may, and the rest
// through it.
type shardWriter struct {
	cached *os.File
	direct *os.File // nil: it may not
}

func (w shardWriter) writeAt(p []byte, offset int64) error {
	if w.direct != nil && isAligned(p, offset) {
		if _, err := w.direct.WriteAt(p, offset); !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	_, err := w.cached.WriteAt(p, offset)
	return err
}
