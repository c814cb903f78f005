package state

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/syndtr/goleveldb/leveldb/storage"
)

// files is what leveldb stores its files in. In the end it closes those that leveldb left
// open. When a log or the manifest could not be written or flushed, nothing is changed
// there any more until the index is opened anew: leveldb would write on behind what may not be on the disk, or under a number
// that it has given already, and pass over that, or over what follows, when it is
// opened.
//
// A log is flushed before the next one is created. Leveldb begins that while the table
// that the full one becomes is still being made, and flushes neither: after power loss
// the newer could be there, with the number up to which the index is complete, and the
// older not. When it closes the full one it would be late: readers wait for that.
type files struct {
	storage.Storage
	failed atomic.Pointer[error]
	busy   sync.RWMutex // held for reading by who changes something

	mu    sync.Mutex // guards all below
	logs  map[int64]*file
	open  map[any]io.Closer // by what leveldb knows them as
	ended bool              // all are closed, for good
	over  chan struct{}     // closed when something has failed; see broken
}

// errEnded says that leveldb was given up.
var errEnded = errors.New("the index is not written to any more")

// err is why nothing is changed any more, if that is so.
func (f *files) err() error {
	if e := f.failed.Load(); e != nil {
		return *e
	}
	return nil
}

// fail takes note of a failure, if err is one, and returns it.
func (f *files) fail(err error) error {
	if err != nil && f.failed.CompareAndSwap(nil, &err) {
		close(f.broken())
	}
	return err
}

// broken is closed when nothing is changed any more.
func (f *files) broken() chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.over == nil {
		f.over = make(chan struct{})
	}
	return f.over
}

// because is err with what nothing is changed any more for: leveldb tells of some
// failures by their text alone.
func (f *files) because(err error) error {
	if cause := f.err(); err != nil && cause != nil && !errors.Is(err, cause) {
		err = errors.Join(err, cause)
	}
	return err
}

// Close closes all files; later changes fail, those under way are waited for.
func (f *files) Close() error {
	_ = f.fail(errEnded)
	f.busy.Lock()
	defer f.busy.Unlock()
	f.mu.Lock()
	left := f.open
	f.open, f.ended = nil, true
	f.mu.Unlock()
	for _, file := range left {
		_ = file.Close() // what was to be flushed was
	}
	return f.Storage.Close()
}

// opened takes note of a file that is open, which leveldb knows as known.
func (f *files) opened(known any, file io.Closer) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return errors.Join(errEnded, file.Close())
	}
	if f.open == nil {
		f.open = map[any]io.Closer{}
	}
	f.open[known] = file
	return nil
}

// close closes a file, if it was not closed with all others.
func (f *files) close(known any, file io.Closer) error {
	f.mu.Lock()
	ended := f.ended
	delete(f.open, known)
	f.mu.Unlock()
	if ended {
		return nil
	}
	return file.Close()
}

// change changes something, if nothing has failed. A failure of what is vital is kept.
func (f *files) change(vital bool, do func() error) error {
	f.busy.RLock()
	defer f.busy.RUnlock()
	err := f.err()
	if err == nil {
		if err = do(); vital {
			_ = f.fail(err)
		}
	}
	return err
}

func (f *files) Create(fd storage.FileDesc) (w storage.Writer, err error) {
	if fd.Type == storage.TypeJournal {
		if err := f.flushLogs(); err != nil {
			return nil, err
		}
	}
	made := &file{of: f, kind: fd.Type}
	err = f.change(false, func() error {
		if made.Writer, err = f.Storage.Create(fd); err == nil {
			err = f.opened(made, made.Writer)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	f.track(fd, made)
	return made, nil
}

// Open opens a file for reading.
func (f *files) Open(fd storage.FileDesc) (storage.Reader, error) {
	r, err := f.Storage.Open(fd)
	if err != nil {
		return nil, err
	}
	opened := &reading{r, f}
	return opened, f.opened(opened, r)
}

// reading is a file that is read.
type reading struct {
	storage.Reader
	of *files
}

func (r *reading) Close() error { return r.of.close(r, r.Reader) }

// flushLogs flushes what was written to logs; nobody writes to one meanwhile.
func (f *files) flushLogs() error {
	f.mu.Lock()
	logs := slices.Collect(maps.Values(f.logs))
	f.mu.Unlock()
	for _, log := range logs {
		if err := log.settle(); err != nil {
			return err
		}
	}
	return nil
}

// track takes note of which logs there are that were begun here; nil is for none.
func (f *files) track(fd storage.FileDesc, log *file) {
	if fd.Type != storage.TypeJournal {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.logs == nil {
		f.logs = map[int64]*file{}
	}
	if log != nil {
		f.logs[fd.Num] = log
	} else {
		delete(f.logs, fd.Num)
	}
}

// rotating reports whether the table that a full log becomes is still to be made: the log
// is removed when it is.
func (f *files) rotating() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.logs) > 1
}

// Remove removes a file. What is left when nothing is changed any more, and a table that
// cannot be removed, goes when leveldb is opened next: now it would fall over that.
func (f *files) Remove(fd storage.FileDesc) error {
	f.track(fd, nil)
	err := f.change(false, func() error { return f.Storage.Remove(fd) })
	if fd.Type == storage.TypeTable || f.err() != nil {
		return nil
	}
	return err
}

func (f *files) Rename(from, to storage.FileDesc) error {
	return f.change(false, func() error { return f.Storage.Rename(from, to) })
}

func (f *files) SetMeta(fd storage.FileDesc) error {
	return f.change(true, func() error { return f.Storage.SetMeta(fd) })
}

// file is one that is written.
type file struct {
	storage.Writer
	of    *files
	kind  storage.FileType
	loose atomic.Bool // written to since it was flushed
}

// vital reports whether others count on what is written there before: where a table
// fails, leveldb gives it up and makes another one.
func (w *file) vital() bool { return w.kind != storage.TypeTable }

func (w *file) Write(p []byte) (n int, err error) {
	if len(p) > 0 { // leveldb writes nothing to a log that it leaves
		w.loose.Store(true)
	}
	err = w.of.change(w.vital(), func() error {
		n, err = w.Writer.Write(p)
		return err
	})
	return n, err
}

func (w *file) Sync() error {
	err := w.of.change(w.vital(), w.Writer.Sync)
	if err == nil {
		w.loose.Store(false)
	}
	return err
}

// settle flushes what was written since the last flush; nobody writes meanwhile.
func (w *file) settle() error {
	if !w.loose.Load() {
		return nil
	}
	return w.Sync()
}

func (w *file) Close() error {
	var err error
	if w.kind == storage.TypeJournal {
		err = w.settle()
	}
	return errors.Join(err, w.of.close(w, w.Writer))
}
