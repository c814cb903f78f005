package state

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

const (
	// BallastMax is how much of the disk is worth holding so that it can be
	// given up when the disk is full: enough for a segment of the journal, and
	// for the index to take in what waits in memory.
	BallastMax = 24 << 20
	// ballastDisk is the smallest disk that a ballast is held on.
	ballastDisk = 256 << 20
	// reopenRoom is how much has to be free for the index to be opened anew.
	reopenRoom = 8 << 20
	// probeSize is how much is written to see whether the disk takes it.
	probeSize = 256 << 10
)

// ballast is a file that takes room on the disk for no other reason than to be
// deleted when there is none left: deleting files, and commits, which free
// space, need some.
type ballast struct {
	fs  disk.FS
	dir string

	mu   sync.Mutex // guards held
	held int64      // bytes
}

func (b *ballast) path() string { return filepath.Join(b.dir, "ballast") }

// find takes over the ballast of an earlier run.
func (b *ballast) find() {
	if st, err := b.fs.Stat(b.path()); err == nil {
		b.held = st.Blocks * 512
	}
}

// stock takes n bytes for the ballast, if there is less and the disk has plenty.
func (b *ballast) stock(n int64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held >= n {
		return nil
	}
	total, avail, err := b.fs.Room(b.dir)
	if err != nil || total < ballastDisk || avail < 2*n {
		return err
	}
	f, err := b.fs.Open(b.path(), os.O_RDWR|os.O_CREATE)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Allocate(0, 0, n); err != nil {
		b.held = 0
		return errors.Join(err, b.fs.Remove(b.path()))
	}
	b.held = n
	return nil
}

// yield gives the room up, and reports whether there was any.
func (b *ballast) yield() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held == 0 {
		return false
	}
	b.held = 0
	return b.fs.Remove(b.path()) == nil
}

// bytes is how much it takes.
func (b *ballast) bytes() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.held
}

// Stock holds n bytes of the disk, which are given up when the disk is full, so that
// what frees space can still be done. It is to be called now and then.
func (s *Store) Stock(n int64) error { return s.ballast.stock(n) }

// Ballast is how much room is held so, in bytes.
func (s *Store) Ballast() int64 { return s.ballast.bytes() }

func isFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// reopen opens the index anew after the disk was full, or the machine had no memory or
// files left, when it was written to: leveldb takes nothing more until then. It does so
// when there is room again; s.flushMu is held.
func (s *Store) reopen() error {
	if _, avail, err := s.opt.Disk.Room(s.dir); err != nil || avail < reopenRoom {
		return unix.ENOSPC // until then it can at least be read
	}
	if err := s.probe(); isShort(err) {
		return err
	} else if err != nil {
		return unix.ENOSPC
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.db.Close() // tells of what failed before; what it has is seen when it is open again
	db, err := s.openDB()
	if err != nil {
		return err // it is tried again, or kept
	}
	s.db = db
	if db.readOnly {
		return unix.ENOSPC
	}
	seq, err := readSeq(db)
	if isShort(err) {
		_ = db.Close() // not to be trusted before this was seen
	} else if err == nil && seq < s.inDB { // it may have what it failed to say that it has
		err = errors.New("it lost what it had when the disk was full")
	}
	return err
}

// probe writes something and takes it away: a quota may be used up on a disk that
// has room.
func (s *Store) probe() error {
	name := filepath.Join(s.dir, "probe")
	f, err := s.opt.Disk.Open(name, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(make([]byte, probeSize), 0)
	return errors.Join(err, f.Close(), s.opt.Disk.Remove(name))
}
