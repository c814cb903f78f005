package tree

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// spoiltDisk takes no flush of one backing file, reads nothing of another, does not
// open a third, and frees nothing of a fourth.
type spoiltDisk struct {
	disk.FS
	unflushed, unread, unopened, unfreed, halved atomic.Uint64 // their numbers; 0: none
	nothingFreed                                 unix.Errno    // why; 0: it has no room for that
	told                                         atomic.Bool   // of the first, by SyncAll, which tells once if once is set
	once                                         bool
}

func (s *spoiltDisk) Open(name string, flags int) (disk.File, error) {
	if isNumber(name, s.unopened.Load()) {
		return nil, unix.EMFILE
	}
	f, err := s.FS.Open(name, flags)
	return spoiltFile{f, s, name}, err
}

func isNumber(name string, number uint64) bool {
	return number != 0 && strings.HasSuffix(name, fmt.Sprintf("/%x", number))
}

func (s *spoiltDisk) SyncAll(dir string) error {
	if s.unflushed.Load() != 0 && !(s.told.Swap(true) && s.once) {
		return unix.EIO
	}
	return s.FS.SyncAll(dir)
}

type spoiltFile struct {
	disk.File
	s    *spoiltDisk
	name string
}

func (f spoiltFile) is(number uint64) bool { return isNumber(f.name, number) }

func (f spoiltFile) flush(do func() error) error {
	if f.is(f.s.unflushed.Load()) {
		return unix.EIO
	}
	return do()
}

func (f spoiltFile) Sync() error     { return f.flush(f.File.Sync) }
func (f spoiltFile) Datasync() error { return f.flush(f.File.Datasync) }

func (f spoiltFile) Allocate(mode uint32, off, n int64) error {
	if mode&unix.FALLOC_FL_PUNCH_HOLE != 0 && f.is(f.s.unfreed.Load()) {
		if f.s.nothingFreed != 0 {
			return f.s.nothingFreed
		}
		return unix.ENOSPC
	}
	if f.is(f.s.halved.Load()) {
		return errors.Join(f.File.Allocate(mode, off, n/2), unix.ENOSPC)
	}
	return f.File.Allocate(mode, off, n)
}

func (f spoiltFile) ReadAt(p []byte, off int64) (int, error) {
	if f.is(f.s.unread.Load()) {
		return 0, unix.EIO
	}
	return f.File.ReadAt(p, off)
}

func newSpoilt(t *testing.T, opt Options) (*device, *committed, *spoiltDisk) {
	c, s := &committed{files: map[link.Link][]byte{}}, &spoiltDisk{FS: disk.Local}
	opt.Content = c
	d := &device{t: t, dir: t.TempDir(), opt: opt, fs: s}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	return d, c, s
}

func (d *device) numberOf(ino Ino) uint64 {
	d.t.Helper()
	r, err := d.rowNow(ino)
	must(d.t, err)
	return r.backing
}

func (d *device) isDirty(ino Ino) bool {
	d.t.Helper()
	dirty, pending := d.isChanged(ino)
	if dirty != pending {
		d.t.Errorf("dirty %v, and a commit looks at it: %v", dirty, pending)
	}
	return dirty
}

// isChanged reports whether a file is dirty, and whether the next commit looks at it.
func (d *device) isChanged(ino Ino) (dirty, pending bool) {
	d.t.Helper()
	s, err := d.ContentState(ctx, ino)
	must(d.t, err)
	pending, err = d.IsPending(ino)
	must(d.t, err)
	return s.Dirty, pending
}

// A file that the disk does not take keeps no other from being clean. It stays dirty
// itself until it is emptied; commits take it once, and when it changed.
func TestOneFileThatCannotBeFlushed(t *testing.T) {
	for _, n := range []int{2, 2 * flushedAlone} {
		d, c, s := newSpoilt(t, Options{})
		var inos []Ino
		for i := range n {
			inos = append(inos, d.write(Root, fmt.Sprint(i), pattern(100_000, byte(i))))
		}
		bad := inos[n/2]
		s.unflushed.Store(d.numberOf(bad))
		for range 2 {
			c.take(t, d, inos...)
			for _, ino := range inos {
				dirty, pending := d.isChanged(ino)
				if dirty != (ino == bad) || pending {
					t.Errorf("of %d files, %d cannot be flushed, and is %d dirty: %v; to be committed: %v", n, bad, ino, dirty, pending)
				}
			}
			s.unflushed.Store(0) // what was lost stays lost
			f, err := d.Open(ctx, bad, os.O_RDWR)
			must(t, err)
			writeAt(t, f, []byte("more"), 0)
			f.Release()
			if dirty, pending := d.isChanged(bad); !dirty || !pending {
				t.Errorf("it was written to, and is dirty: %v; to be committed: %v", dirty, pending)
			}
		}
		if n := evict(t, d, bad); n != 0 {
			t.Errorf("%d bytes are gone of what is dirty", n)
		}
		f, err := d.Open(ctx, bad, os.O_RDWR|os.O_TRUNC)
		must(t, err)
		_, err = f.WriteAt(ctx, pattern(100_000, 99), 0, false)
		must(t, errors.Join(err, f.Sync(ctx, false)))
		f.Release()
		c.take(t, d, bad)
		if d.isDirty(bad) {
			t.Error("still dirty after it was emptied")
		}
	}
}

// What a commit cannot read on the local disk, or not open or flush though the kernel
// may be writing it, it can say of that file alone.
func TestOneFileThatCannotBeRead(t *testing.T) {
	d, _, s := newSpoilt(t, Options{Passthrough: true})
	ino := d.write(Root, "f", pattern(100_000, 1))
	s.unread.Store(d.numberOf(ino))
	cf := d.openCut(ino)
	if err := cf.ReadAt(ctx, make([]byte, 1000), 0); !errors.Is(err, ErrUnread) {
		t.Errorf("read: %v", err)
	}
	cf.c.Close()

	w := d.passed("passed", os.O_RDWR)
	defer w.Release()
	s.unflushed.Store(d.numberOf(w.Ino()))
	d.rest()
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(w.Ino())
	must(t, err)
	if _, err := cut.OpenFile(ctx, in, Whole); !errors.Is(err, ErrUnread) {
		t.Errorf("flushed before reading: %v", err)
	}
	s.unopened.Store(d.numberOf(w.Ino()))
	if _, err := cut.OpenFile(ctx, in, Whole); !errors.Is(err, ErrUnread) {
		t.Errorf("opened: %v", err)
	}
}

// Who flushes the whole disk hears once that some file did not reach it. It is not taken
// for clean by whoever flushes the disk next.
func TestDiskTellsOnce(t *testing.T) {
	d, c, s := newSpoilt(t, Options{})
	s.once = true
	var inos []Ino
	for i := range 2 * flushedAlone {
		inos = append(inos, d.write(Root, fmt.Sprint(i), pattern(100_000, byte(i))))
	}
	all, _ := d.written.take() // so many changed that they are not in memory
	for in := range all {
		in.listed = false
		d.release(in)
	}
	d.written.again()
	bad := inos[3]
	s.unflushed.Store(d.numberOf(bad))
	if err := d.flushAll(); err == nil {
		t.Fatal("the disk took it")
	}
	c.take(t, d, inos...)
	for _, ino := range inos {
		if dirty, _ := d.isChanged(ino); dirty != (ino == bad) {
			t.Errorf("%d cannot be flushed, and %d is dirty: %v", bad, ino, dirty)
		}
	}
}

// More files than are listed are flushed by the round after the next, too.
func TestMoreAreFlushedTwice(t *testing.T) {
	var w written
	w.again()
	for round, want := range []bool{true, true, false} {
		if _, more := w.take(); more != want {
			t.Errorf("round %d: more %v", round, more)
		}
	}
}

// What a full disk let an allocation do in part is taken by the next commit, and counts.
func TestAllocatedInPart(t *testing.T) {
	const size = 3 * dag.ChunkSize
	for name, c := range map[string]struct {
		mode  uint32
		dirty bool
	}{
		"punched":              {unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE, true},
		"zeroed":               {unix.FALLOC_FL_ZERO_RANGE, true},
		"reserved":             {0, false},
		"reserved, size stays": {unix.FALLOC_FL_KEEP_SIZE, false},
		"reserved again":       {unix.FALLOC_FL_KEEP_SIZE, false},
	} {
		t.Run(name, func(t *testing.T) {
			d, content, s := newSpoilt(t, Options{})
			ino := d.write(Root, "f", pattern(size, 1))
			content.take(t, d, ino)
			f, err := d.Open(ctx, ino, os.O_RDWR)
			must(t, err)
			defer f.Release()
			if name == "reserved again" { // which it stays
				must(t, f.Allocate(ctx, 0, 4*size, c.mode))
			}
			before := onDisk(t, d)
			s.halved.Store(d.numberOf(ino))
			if err := f.Allocate(ctx, 0, 8*size, c.mode); !errors.Is(err, ErrNoSpace) {
				t.Fatal(err)
			}
			if a, err := d.Attr(ctx, ino); err != nil || a.Size != size {
				t.Errorf("size %d, %v", a.Size, err)
			}
			if all, _ := d.Local(); all != onDisk(t, d) || all > before || name == "reserved again" && all < before {
				t.Errorf("%d bytes count, the disk has %d, before it had %d", all, onDisk(t, d), before)
			}
			f.in.mu.Lock()
			defer f.in.mu.Unlock()
			if dirty := f.in.whole || f.in.dirty.Contains(0, size); dirty != c.dirty {
				t.Errorf("the next commit takes all of it: %v", dirty)
			}
		})
	}
}
