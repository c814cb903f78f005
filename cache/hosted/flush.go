package hosted

import (
	"fmt"
	"os"
	"path"
	"strconv"
	"sync"
	"sync/atomic"
)

// A flusher flushes one folder to disk. Calls that come while a flush is under
// way share the next one, so that many files that arrive together cost two
// flushes of their folder, not one each.
type flusher struct {
	root *os.Root
	dir  string

	mu   sync.Mutex // guards next
	next *flush     // the one that has not begun

	turn sync.Mutex // held by the flush under way
}

type flush struct{ err error }

// Flush returns when all that was done in the folder before the call is on
// disk.
func (f *flusher) Flush() error {
	f.mu.Lock()
	if f.next == nil {
		f.next = new(flush)
	}
	mine := f.next
	f.mu.Unlock()

	f.turn.Lock()
	defer f.turn.Unlock()
	f.mu.Lock()
	first := f.next == mine
	if first {
		f.next = nil
	}
	f.mu.Unlock()
	if first {
		mine.err = f.flush()
	}
	return mine.err
}

func (f *flusher) flush() error {
	d, err := f.root.Open(f.dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("flush of folder %s: %w", f.dir, err)
	}
	return nil
}

// serial gives names under tmp.
type serial struct{ n atomic.Uint64 }

func (s *serial) next() string { return path.Join(tmpDir, strconv.FormatUint(s.n.Add(1), 10)) }

// writeFile puts a small file into its place, whole and flushed; folder is the
// flusher of the folder it lies in.
func (s *Store) writeFile(name string, b []byte, folder *flusher) error {
	tmp := s.serial.next()
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		_ = s.root.Remove(tmp)
		return fmt.Errorf("write %s: %w", name, err)
	}
	return folder.Flush()
}
