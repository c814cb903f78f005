package tree

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// TestFlushedSoon: what was written is on the disk within a second, whether it is
// closed, open, or written by the kernel alone; and what does not change any more
// is not flushed again.
func TestFlushedSoon(t *testing.T) {
	needsFineTimes(t)
	synctest.Test(t, flushedSoon)
}

func flushedSoon(t *testing.T) {
	d, count := runningDevice(t, Options{Passthrough: true})
	const moment = 2 * flushEvery
	wantFlushes := func(what string, files int, wait time.Duration, do func()) {
		t.Helper()
		_, n := count.during(func() {
			do()
			time.Sleep(wait)
			synctest.Wait()
		})
		if n != files {
			t.Errorf("%s: %d backing files were flushed, want %d", what, n, files)
		}
	}
	large := d.create(Root, "large")
	wantFlushes("an open file", 1, moment, func() { writeAt(t, large, pattern(100_000, 1), 0) })
	wantFlushes("nothing", 0, time.Minute, func() {})
	wantFlushes("a file written twice and closed", 1, moment, func() {
		writeAt(t, large, pattern(5000, 2), 50_000)
		writeAt(t, large, pattern(5000, 3), 60_000)
		large.Release()
	})
	wantFlushes("what was synced", 1, moment, func() {
		f := d.create(Root, "synced")
		writeAt(t, f, pattern(100_000, 4), 0)
		must(t, f.Sync(ctx, false))
		f.Release()
	})
	wantFlushes("what is unlinked", 0, moment, func() {
		f := d.create(Root, "gone")
		writeAt(t, f, pattern(100_000, 5), 0)
		must(t, d.Unlink(ctx, Root, "gone"))
		f.Release()
	})
	var later *File
	wantFlushes("what has no name", 0, moment, func() {
		var err error
		later, _, err = d.Tmpfile(ctx, Root, 0o644, os.O_RDWR, Owner{})
		must(t, err)
		writeAt(t, later, pattern(100_000, 7), 0)
	})
	wantFlushes("what gets one", 1, moment, func() {
		_, err := d.Link(ctx, later.Ino(), Root, "later")
		must(t, err)
	})
	later.Release()
	var passed *File
	wantFlushes("a file that the kernel writes", 1, moment, func() {
		var err error
		passed, _, err = d.Create(ctx, Root, "passed", 0o644, os.O_WRONLY, Owner{})
		must(t, err)
		byKernel(t, passed)
	})
	wantFlushes("one that it does not write", 0, time.Minute, func() {})
	wantFlushes("one that it writes again", 1, moment, func() { byKernel(t, passed) })
	passed.Release()
	wantFlushes("one that was closed", 1, time.Minute, func() {})
}

// byKernel writes to a file as the kernel does, past the tree.
func byKernel(t *testing.T, f *File) {
	t.Helper()
	fd, ok := f.Passthrough()
	if !ok {
		t.Fatal("the kernel does not write the file alone")
	}
	_, err := unix.Pwrite(fd, pattern(100_000, 6), 0)
	must(t, err)
}

// runningDevice is one that flushes by itself, until the test ends.
func runningDevice(t *testing.T, o Options) (*device, *flushes) {
	f := &flushes{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: f, opt: o}
	d.open()
	run, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() { _ = d.Run(run) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
		_ = d.st.Close()
		time.Sleep(time.Minute) // leveldb's last goroutine ends
	})
	return d, f
}

// TestFlushedSoonFails: a flush that nobody asked for is not forgotten when it
// fails: whoever asks next hears of it.
func TestFlushedSoonFails(t *testing.T) { synctest.Test(t, flushedSoonFails) }

func flushedSoonFails(t *testing.T) {
	d, count := runningDevice(t, Options{Passthrough: true})
	broken := errors.New("broken")
	f := d.create(Root, "file")
	count.mu.Lock()
	count.fail = broken
	count.mu.Unlock()
	writeAt(t, f, pattern(100_000, 1), 0)
	time.Sleep(2 * flushEvery)
	synctest.Wait()
	count.mu.Lock()
	count.fail = nil
	count.mu.Unlock()
	for range 2 {
		if err := f.Sync(ctx, false); !errors.Is(err, broken) {
			t.Errorf("after a flush in the background failed, fsync says %v", err)
		}
	}
	f.Release()
}
