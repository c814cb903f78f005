package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/chunker/link"
)

// flushes is a disk that counts flushes, and calls hook before each of the
// journal's, fileHook before each of another file's.
type flushes struct {
	disk.FS
	mu             sync.Mutex // guards the next three
	journal, files int
	fail           error // of flushes of other files than the journal
	hook, fileHook func()
}

type flushedFile struct {
	disk.File
	f       *flushes
	journal bool
}

func (f *flushes) Open(name string, flags int) (disk.File, error) {
	file, err := f.FS.Open(name, flags)
	return flushedFile{file, f, strings.HasSuffix(name, ".journal")}, err
}

func (f flushedFile) Datasync() error {
	f.f.mu.Lock()
	hook, fail := f.f.hook, error(nil)
	if f.journal {
		f.f.journal++
	} else {
		f.f.files++
		hook, fail = f.f.fileHook, f.f.fail
	}
	f.f.mu.Unlock()
	if hook != nil {
		hook()
	}
	if fail != nil {
		return fail
	}
	return f.File.Datasync()
}

// during counts the flushes that fn takes.
func (f *flushes) during(fn func()) (journal, files int) {
	f.mu.Lock()
	journal, files = f.journal, f.files
	f.mu.Unlock()
	fn()
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.journal - journal, f.files - files
}

func countingDevice(t *testing.T) (*device, *flushes) {
	f := &flushes{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: f}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	return d, f
}

func (d *device) create(dir Ino, name string) *File {
	d.t.Helper()
	f, _, err := d.Create(ctx, dir, name, 0o644, os.O_RDWR, Owner{})
	must(d.t, err)
	return f
}

func writeAt(t testing.TB, f *File, p []byte, off int64) {
	t.Helper()
	_, err := f.WriteAt(ctx, p, off, false)
	must(t, err)
}

// A flush is what an fsync costs; see docs/fs.md.
func TestFlushes(t *testing.T) {
	d, count := countingDevice(t)
	small, large := d.create(Root, "small"), d.create(Root, "large")
	writeAt(t, large, pattern(100_000, 1), 0)
	must(t, large.Sync(ctx, false))
	for _, tt := range []struct {
		what           string
		do             func()
		journal, files int
	}{
		{"small file", func() {
			writeAt(t, small, pattern(4096, 1), 0)
			must(t, small.Sync(ctx, true))
		}, 1, 0},
		{"small file again, and its directory", func() {
			writeAt(t, small, pattern(4096, 2), 0)
			must(t, small.Sync(ctx, false))
			must(t, d.SyncDir(ctx, Root))
		}, 1, 0},
		{"nothing new", func() { must(t, small.Sync(ctx, false)) }, 0, 0},
		{"overwriting in a backing file", func() {
			writeAt(t, large, pattern(4096, 3), 8192)
			must(t, large.Sync(ctx, true))
		}, 0, 1},
		{"rename over a file", func() {
			other := d.create(Root, "other")
			writeAt(t, other, pattern(100_000, 4), 0)
			other.Release()
			must(t, d.Rename(ctx, Root, "other", Root, "large", 0))
		}, 0, 1},
		{"rename of what was synced over a file", func() {
			other := d.create(Root, "other")
			writeAt(t, other, pattern(100_000, 4), 0)
			must(t, other.Sync(ctx, false))
			other.Release()
			must(t, d.Rename(ctx, Root, "other", Root, "large", 0))
		}, 1, 1},
	} {
		if j, f := count.during(tt.do); j != tt.journal || f != tt.files {
			t.Errorf("%s: flushed the journal %d times and backing files %d times, want %d and %d",
				tt.what, j, f, tt.journal, tt.files)
		}
	}
}

// Many fsyncs at once cost two flushes: the one under way, and one for all who
// came meanwhile.
func TestFsyncsShareAFlush(t *testing.T) {
	const others = 20
	d, count := countingDevice(t)
	first := d.create(Root, "first")
	writeAt(t, first, []byte("x"), 0)
	wrote := make(chan struct{}, others)
	written := sync.OnceFunc(func() {
		for range others {
			<-wrote
		}
	})
	count.hook = written
	flushed, _ := count.during(func() {
		var all sync.WaitGroup
		all.Go(func() { must(t, first.Sync(ctx, true)) })
		for i := range others {
			all.Go(func() {
				f := d.create(Root, fmt.Sprint(i))
				writeAt(t, f, []byte("y"), 0)
				wrote <- struct{}{}
				must(t, f.Sync(ctx, true))
			})
		}
		all.Wait()
	})
	if flushed > 2 {
		t.Errorf("flushed %d times", flushed)
	}
}

// While a file is being flushed it can be read and written, and what is written
// then is flushed the next time.
func TestNobodyWaitsForAFlush(t *testing.T) {
	for _, size := range []int{100, 100_000} {
		d, count := countingDevice(t)
		f := d.create(Root, "file")
		writeAt(t, f, pattern(size, 1), 0)
		hook := sync.OnceFunc(func() {
			writeAt(t, f, pattern(100, 2), 0)
			_, err := d.Attr(ctx, f.Ino())
			must(t, err)
		})
		if size > InlineMax {
			count.fileHook = hook
		} else {
			count.hook = hook
		}
		must(t, f.Sync(ctx, false))
		if j, n := count.during(func() { must(t, f.Sync(ctx, false)) }); j+n != 1 {
			t.Errorf("%d bytes: what was written during a flush took %d flushes", size, j+n)
		}
	}
}

// An fsync flushes what was written before, also when the inode left memory
// between.
func TestFsyncOfAnInodeThatLeftMemory(t *testing.T) {
	d, disk := countingDevice(t)
	ino := d.write(Root, "f", []byte("content"))
	in, _ := d.inodes.find(ino)
	if n := in.refs.n.Add(-1); n != 0 {
		t.Fatalf("it has %d references", n)
	}
	s := d.inodes.shard(ino)
	s.mu.Lock()
	d.inodes.drop(s, in)
	s.mu.Unlock()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	if n, _ := disk.during(func() { err = f.Sync(ctx, false) }); n != 1 || err != nil {
		t.Errorf("%d flushes of the journal, %v", n, err)
	}
}

// badDisk fails to flush anything but the journal.
type badDisk struct{ disk.FS }

type badFile struct {
	disk.File
	journal bool
}

func (b badDisk) Open(name string, flags int) (disk.File, error) {
	f, err := b.FS.Open(name, flags)
	return badFile{f, strings.HasSuffix(name, ".journal")}, err
}

func (f badFile) Datasync() error {
	if f.journal {
		return f.File.Datasync()
	}
	return unix.EIO
}

// A write through O_SYNC that did not reach the disk has written nothing: who is
// told of bytes does not look at the error.
func TestSyncedWriteFails(t *testing.T) {
	d := &device{t: t, dir: t.TempDir(), fs: badDisk{disk.Local}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	f, _, err := d.Create(ctx, Root, "f", 0o644, os.O_WRONLY|os.O_SYNC, Owner{})
	must(t, err)
	defer f.Release()
	if n, err := f.WriteAt(ctx, pattern(100_000, 1), 0, false); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	if err := f.Allocate(ctx, 0, 200_000, 0); err == nil {
		t.Error("room was reserved for good on a disk that flushes nothing")
	}
}

// A file may be closed while it is flushed by itself. The kernel tells of what it could
// not write once: who opens the file again, and asks for a flush, is to hear of it.
func TestFlushFailsWhileAFileIsClosed(t *testing.T) {
	d, disk := countingDevice(t)
	f := d.create(Root, "file")
	writeAt(t, f, pattern(100_000, 1), 0)
	disk.fail = unix.EIO
	disk.fileHook = sync.OnceFunc(func() {
		disk.mu.Lock()
		disk.fail = nil // of the next ones
		disk.mu.Unlock()
		f.Release()
	})
	if err := d.flushAll(); err == nil {
		t.Error("a flush that failed did not fail")
	}
	if f.in.file != nil {
		t.Error("the backing file stays open")
	}
	again, err := d.Open(ctx, f.Ino(), os.O_RDWR)
	must(t, err)
	defer again.Release()
	if err := again.Sync(ctx, false); err == nil {
		t.Error("what the flush lost was flushed by the next one")
	}
}

// A file that the kernel writes alone may be closed while it is flushed by itself. What
// was written meanwhile is flushed by who asks for that next, and else soon, whether or
// not somebody reads the file still.
func TestWrittenAloneWhileItIsFlushed(t *testing.T) {
	for _, read := range []bool{false, true} {
		disk := &flushes{FS: disk.Local}
		d := &device{t: t, dir: t.TempDir(), fs: disk, opt: Options{Passthrough: true}}
		d.open()
		t.Cleanup(func() { _ = d.st.Close() })
		closeWhileFlushed := func(name string) Ino {
			f := d.passed(name, os.O_WRONLY)
			if read {
				r, err := d.Open(ctx, f.Ino(), os.O_RDONLY)
				must(t, err)
				t.Cleanup(r.Release)
			}
			disk.fileHook = sync.OnceFunc(func() {
				writeAlone(t, f, []byte("late"), 0)
				f.Release()
			})
			must(t, d.flushAll())
			disk.fileHook = nil
			return f.Ino()
		}

		ino := closeWhileFlushed("asked")
		again, err := d.Open(ctx, ino, os.O_RDONLY)
		must(t, err)
		if _, n := disk.during(func() { must(t, again.Sync(ctx, true)) }); n != 1 {
			t.Errorf("read beside: %v: %d flushes by fsync", read, n)
		}
		again.Release()
		closeWhileFlushed("by itself")
		if _, n := disk.during(func() { must(t, d.flushAll()) }); n != 1 {
			t.Errorf("read beside: %v: %d flushes by itself", read, n)
		}
		closeWhileFlushed("renamed")
		d.write(Root, "replaced", pattern(100, 1))
		if _, n := disk.during(func() { must(t, d.Rename(ctx, Root, "renamed", Root, "replaced", 0)) }); n != 1 {
			t.Errorf("read beside: %v: %d flushes by a rename", read, n)
		}
	}
}

// A copy by reference has content that was safe before. When it came here, into the
// journal, and outgrows that, it is safe at its new place first.
func TestCopyOutgrowsTheJournal(t *testing.T) {
	disk, c := &flushes{FS: disk.Local}, &committed{files: map[link.Link][]byte{}}
	d := &device{t: t, dir: t.TempDir(), fs: disk, opt: Options{Content: c}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	want := pattern(10_000, 1)
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)
	if n, err := d.EvictSmall(ctx, ino); n == 0 || err != nil {
		t.Fatalf("%d bytes let go of, %v", n, err)
	}
	src, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer src.Release()
	dst := d.create(Root, "copy")
	defer dst.Release()
	_, err = dst.CopyWhole(src, MaxSize, false)
	must(t, err)
	if got := d.read(dst.Ino()); !bytes.Equal(got, want) {
		t.Fatal("the copy reads otherwise")
	}
	must(t, dst.Sync(ctx, false))
	if _, n := disk.during(func() { writeAt(t, dst, []byte("more"), 20_000) }); n != 1 {
		t.Errorf("%d flushes before what was safe has another place", n)
	}
}

// A file that was let go of, and came back as a row, is safe with holders: what it grows to
// is flushed before it takes the place of that.
func TestReturnedOutgrowsTheJournal(t *testing.T) {
	disk, c := &flushes{FS: disk.Local}, &committed{files: map[link.Link][]byte{}}
	d := &device{t: t, dir: t.TempDir(), fs: disk, opt: Options{Content: c}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	f := d.create(Root, "f")
	writeAt(t, f, pattern(40_000, 1), 0)
	size := int64(10_000)
	_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size})
	must(t, err)
	must(t, f.Sync(ctx, false))
	c.take(t, d, f.Ino())
	f.Release()
	if n, err := d.Evict(ctx, f.Ino(), false); n == 0 || err != nil {
		t.Fatalf("%d bytes let go of, %v", n, err)
	}
	if got := d.read(f.Ino()); !bytes.Equal(got, pattern(40_000, 1)[:size]) {
		t.Fatal("it came back otherwise")
	}
	must(t, d.Sync())
	f, err = d.Open(ctx, f.Ino(), os.O_RDWR)
	must(t, err)
	defer f.Release()
	if _, n := disk.during(func() { writeAt(t, f, []byte("more"), 20_000) }); n != 1 {
		t.Errorf("%d flushes before what was safe has another place", n)
	}
}

// That too many files are open says nothing of what a file holds: once there are fewer,
// it is flushed as any other.
func TestTooManyOpenFilesLoseNothing(t *testing.T) {
	d, disk := countingDevice(t)
	f := d.create(Root, "file")
	defer f.Release()
	writeAt(t, f, pattern(100_000, 1), 0)
	disk.fail = unix.EMFILE
	for range 2 {
		if err := f.Sync(ctx, false); !errors.Is(err, unix.EMFILE) {
			t.Errorf("flushed: %v", err)
		}
	}
	disk.fail = nil
	if _, n := disk.during(func() { must(t, f.Sync(ctx, false)) }); n != 1 {
		t.Errorf("%d flushes", n)
	}
}

// The sweep may come by a backing file whose inode was unlinked just now: power
// loss must not bring back the name alone.
func TestSweepAfterAnUnlink(t *testing.T) {
	d, disk := countingDevice(t)
	ino := d.write(Root, "f", pattern(100_000, 1))
	d.restart()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer f.Release()
	must(t, d.Unlink(ctx, Root, "f"))
	if n, _ := disk.during(func() { err = d.Sweep(ctx) }); n == 0 || err != nil {
		t.Errorf("%d flushes of the journal, %v", n, err)
	}
}

// The right to run as another, which a write takes away, does not come back beside what was
// written, neither after kill -9 nor after power loss.
func TestWriteTakesPrivilegesForGood(t *testing.T) {
	d := newDevice(t, Options{})
	f := d.create(Root, "program")
	writeAt(t, f, pattern(100_000, 1), 0)
	mode := uint32(0o6755)
	_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Mode: &mode})
	must(t, err)
	must(t, f.Sync(ctx, false))
	_, err = f.WriteAt(ctx, []byte("other"), 0, true)
	must(t, err)
	if !d.st.Durable(d.st.Seq()) {
		t.Error("after power loss what was written may be there, and the mode as it was")
	}
	d.restart()
	a, err := d.Attr(ctx, f.Ino())
	must(t, err)
	if a.Mode&0o7777 != 0o755 || !bytes.HasPrefix(d.read(f.Ino()), []byte("other")) {
		t.Errorf("after a crash the mode is %o", a.Mode)
	}
}

// A file that cannot be flushed for the moment, as too many are open, is flushed soon.
func TestFlushedWhenFewerAreOpen(t *testing.T) {
	d, _, s := newSpoilt(t, Options{})
	ino := d.write(Root, "f", pattern(100_000, 1))
	s.unopened.Store(d.numberOf(ino))
	if err := d.flushAll(); !errors.Is(err, unix.EMFILE) {
		t.Errorf("flushed: %v", err)
	}
	s.unopened.Store(0)
	must(t, d.flushAll())
	in, _ := d.inodes.find(ino)
	if in == nil || !in.isFlushed() {
		t.Error("nobody flushes it any more")
	}
}
