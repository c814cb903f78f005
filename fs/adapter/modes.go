package adapter

import (
	"sync"
	"sync/atomic"

	"github.com/hanwen/go-fuse/v2/fuse"

	"skep/cache/tree"
)

// mode is how the kernel reads and writes an inode that is open. The first open
// decides; it ends with the last close.
type mode struct {
	opens   int
	writers int
	passed  bool  // straight from and to the backing file
	backing int32 // the kernel's id of that, if passed
	past    bool  // through the daemon, but past the page cache
	read    bool  // if past: somebody may have had the kernel take pages all the same
}

// modeTable holds the mode of each open inode.
type modeTable struct {
	refused atomic.Bool  // the kernel refused a backing file
	unseen  atomic.Int64 // inodes that are passed and open for writing
	shards  [shardCount]modeShard
}

type modeShard struct {
	mu sync.Mutex // guards all below, and what is in it
	m  map[tree.Ino]*mode
	// old has inodes of which the kernel may have pages that are not true: it reads
	// ahead for who asks, and maps, past the page cache, too, and changes nothing in
	// these pages when somebody writes.
	old map[tree.Ino]bool
}

func (t *modeTable) init() {
	for i := range t.shards {
		t.shards[i].m, t.shards[i].old = map[tree.Ino]*mode{}, map[tree.Ino]bool{}
	}
}

func (t *modeTable) shard(ino tree.Ino) *modeShard { return &t.shards[ino%shardCount] }

// changesUnseen reports whether the kernel may change the inode without a
// request: its attributes are true at this moment only.
func (t *modeTable) changesUnseen(ino tree.Ino) bool {
	if t.unseen.Load() == 0 {
		return false
	}
	s := t.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.m[ino]
	return ok && m.passed && m.writers > 0
}

// passed reports whether an inode that is open is passed through.
func (t *modeTable) passed(ino tree.Ino) bool {
	s := t.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.m[ino]
	return ok && m.passed
}

// forget drops what is known of an inode that the kernel forgot, with its pages.
func (t *modeTable) forget(ino tree.Ino) {
	s := t.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.old, ino)
}

// enter counts an open of an inode in and says how the kernel is to go about it. past
// is whether the first open would rather go past the page cache. All others do as well
// then: the kernel does not see in its pages what is written past them.
func (f *FS) enter(e *openFile, past bool, out *fuse.OpenOut) {
	ino := e.Ino()
	s := f.modes.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	m, ok := s.m[ino]
	if !ok {
		m = f.firstMode(e.File)
		m.past = !m.passed && past && f.mayGoPast()
		s.m[ino] = m
	}
	m.opens++
	e.passed, e.past = m.passed, m.past
	if e.writable {
		m.writers++
	}
	if m.passed && e.writable && m.writers == 1 {
		f.modes.unseen.Add(1)
		if m.opens > 1 {
			// Readers came before: the kernel may remember attributes that
			// stores into a mapping are about to make untrue.
			f.notes.attributes(ino)
		}
	}
	switch {
	case m.passed:
		out.BackingID = m.backing
		out.OpenFlags |= fuse.FOPEN_PASSTHROUGH
	case m.past:
		m.read = m.read || e.readable
		out.OpenFlags |= fuse.FOPEN_DIRECT_IO
	case s.old[ino]:
		delete(s.old, ino) // the kernel drops its pages with this answer
	default:
		out.OpenFlags |= fuse.FOPEN_KEEP_CACHE
	}
}

// mayGoPast reports whether a file may be read and written past the page cache without
// the program's wish: older kernels (before 6.6) refuse to map it then.
func (f *FS) mayGoPast() bool { return f.kernel.Knows(fuse.CAP_DIRECT_IO_ALLOW_MMAP) }

// firstMode decides how an inode that nobody has open is read and written.
func (f *FS) firstMode(h *tree.File) *mode {
	if f.modes.refused.Load() {
		return &mode{}
	}
	fd, ok := h.Passthrough()
	if !ok {
		return &mode{}
	}
	var id int32
	_, err := h.Shared() // where nobody can tell whether it is mapped, nothing is passed
	if err == nil {
		id, err = f.kernel.RegisterBacking(fd)
	}
	if err != nil {
		if f.modes.refused.CompareAndSwap(false, true) {
			f.log.Info("files go through the daemon: the kernel takes no backing files", "err", err)
		}
		return &mode{}
	}
	return &mode{passed: true, backing: id}
}

// leave counts a handle out that was closed, and releases it. The kernel has ended its
// use of the backing file by then, or is about to.
func (f *FS) leave(e *openFile) {
	f.countOut(e)
	e.Release()
}

func (f *FS) countOut(e *openFile) {
	ino := e.Ino()
	s := f.modes.shard(ino)
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.m[ino]
	m.opens--
	if e.writable {
		m.writers--
		if m.passed && m.writers == 0 {
			f.modes.unseen.Add(-1)
		}
	}
	if m.opens > 0 {
		return
	}
	delete(s.m, ino)
	if m.past && m.read {
		s.old[ino] = true
	}
	if m.passed {
		if err := f.kernel.UnregisterBacking(m.backing); err != nil {
			f.log.Debug("ending a backing file", "err", err)
		}
	}
}
