package adapter

import (
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/tree"
)

// A mapping outlives the descriptor that it was made with. Of a file that the kernel
// reads and writes alone it holds the backing file, and nothing of ours: the file is
// released with the last close(2), and the program goes on storing. So of the handles
// by which a file can have been mapped one stays open, as if nobody had closed it,
// until the backing file is ours alone. Nobody tells when that is; but the kernel
// gives a lease to write only on a file that nobody else has open or mapped.

// firstLook is how long after the last close it is looked whether a mapping is left
// that was there at once; then twice as long each time, up to lastLook. The kernel
// itself needs a moment to let go of a file.
const (
	firstLook = time.Millisecond
	lastLook  = time.Second
)

// lease reports, as unix.EAGAIN, that somebody else has a file open or mapped. fd is
// the only descriptor of ours, open for reading and writing.
func lease(fd int) error {
	_, err := unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK)
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
	}
	return err
}

// isMapped reports whether somebody has the backing file of a handle, which nobody
// else has open here.
func isMapped(e *openFile) bool {
	fd, ok := e.Passthrough()
	return ok && lease(fd) == unix.EAGAIN
}

// keep takes the place of the handle that stays open, if the one that was closed can
// have been mapped in more ways. It returns the one that does not stay, nil if there
// is none.
func (m *mode) keep(closed *openFile) (ends *openFile) {
	switch {
	case !m.passed || !closed.readable:
		return closed
	case m.kept == nil || closed.writable && !m.kept.writable:
		closed, m.kept = m.kept, closed
	}
	return closed
}

// isKept reports whether an inode is open for the sake of mappings alone.
func (m *mode) isKept() bool { return m.kept != nil && m.opens == 1 }

// watch looks from time to time whether the mappings of an inode are gone, until they
// are or somebody opens it.
func (f *FS) watch(ino tree.Ino) {
	for d := firstLook; ; d = min(2*d, lastLook) {
		select {
		case <-time.After(d):
		case <-f.modes.ended.Done():
			return
		}
		if !f.look(ino) {
			return
		}
	}
}

// look ends what is kept open of an inode, if no mapping is left. It reports whether
// to look again.
func (f *FS) look(ino tree.Ino) bool {
	s := f.modes.shard(ino)
	s.mu.Lock()
	m := s.m[ino]
	if m == nil || !m.isKept() {
		if m != nil {
			m.watched = false
		}
		s.mu.Unlock()
		return false
	}
	if isMapped(m.kept) {
		s.mu.Unlock()
		return true
	}
	e := m.kept
	f.countOut(ino, m, e)
	s.mu.Unlock()
	f.end(ino, m, e)
	return false
}

// end ends a handle that was counted out. Where the kernel has forgotten the inode
// meanwhile, nobody else will say so.
func (f *FS) end(ino tree.Ino, m *mode, e *openFile) {
	e.Release()
	if m.forgotten {
		f.tree.Forget(ino)
	}
}

// forgotten notes that the kernel does not know an inode any more.
func (t *modeTable) forgotten(ino tree.Ino) {
	if t.kept.Load() == 0 {
		return
	}
	s := t.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.m[ino]; m != nil {
		m.forgotten = true
	}
}

// endKept ends all that is kept open, when the mount is gone.
func (f *FS) endKept() {
	f.modes.end()
	f.modes.watches.Wait()
	for i := range f.modes.shards {
		s := &f.modes.shards[i]
		s.mu.Lock()
		ended := map[tree.Ino]*openFile{}
		for ino, m := range s.m {
			if m.kept != nil {
				ended[ino] = m.kept
				f.countOut(ino, m, m.kept)
			}
		}
		s.mu.Unlock()
		for ino, e := range ended {
			e.Release()
			f.tree.Forget(ino)
		}
	}
}
