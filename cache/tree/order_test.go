package tree

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"skep/cache/disk"
	"skep/chunker/link"
)

// watchedDisk does something once, before anything is read of a file.
type watchedDisk struct {
	disk.FS
	reading atomic.Pointer[func(off int64)]
}

type watchedFile struct {
	disk.File
	fs *watchedDisk
}

func (w *watchedDisk) Open(name string, flags int) (disk.File, error) {
	f, err := w.FS.Open(name, flags)
	return watchedFile{f, w}, err
}

func (f watchedFile) ReadAt(p []byte, off int64) (int, error) {
	if do := f.fs.reading.Swap(nil); do != nil {
		(*do)(off)
	}
	return f.File.ReadAt(p, off)
}

func newWatched(t *testing.T) (*device, *committed, *watchedDisk) {
	c, w := &committed{files: map[link.Link][]byte{}}, &watchedDisk{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: w, opt: Options{Passthrough: true, Content: c}}
	d.open()
	return d, c, w
}

// readDuring reads a file as a commit does, while something is done.
func (d *device) readDuring(w *watchedDisk, ino Ino, how Reading, do func()) ([]byte, error) {
	return d.readAfter(w, ino, how, func() {}, do)
}

// readAfter is readDuring with something done between the cut and the reading.
func (d *device) readAfter(w *watchedDisk, ino Ino, how Reading, before, during func()) ([]byte, error) {
	d.t.Helper()
	d.rest()
	cut, err := d.Cut()
	must(d.t, err)
	defer cut.Close()
	before()
	in, _, err := cut.Inode(ino)
	must(d.t, err)
	once := func(int64) { during() }
	w.reading.Store(&once)
	f, err := cut.OpenFile(ctx, in, how)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, f.Size)
	if err := f.ReadAt(ctx, b, 0); err != nil {
		return nil, err
	}
	return b, f.Taken()
}

// What is read of a file that the kernel writes alone counts if it was at rest, or
// else if nobody can count on one write having come before another.
func TestReadings(t *testing.T) {
	cut := func(d *device, f *File) {
		for _, size := range []int64{100, 20000} {
			_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size, File: f})
			must(d.t, err)
		}
	}
	d, _, w := newWatched(t)
	defer d.st.Close()
	for _, c := range []struct {
		name                   string
		do                     func(d *device, f *File)
		whole, ordered, copied bool // it counts
		flushes                bool
	}{
		{"nothing", func(*device, *File) {}, true, true, true, false},
		{"written", func(*device, *File) {}, false, true, true, false},
		{"flushed", func(d *device, f *File) { must(d.t, f.Sync(ctx, true)) }, false, false, true, true},
		{"cut short", cut, false, false, false, false},
		{"opened to flush each write", func(d *device, f *File) {
			_, err := d.Open(ctx, f.Ino(), os.O_WRONLY|os.O_SYNC)
			must(d.t, err)
		}, false, false, false, true},
		{"open to flush each write", func(*device, *File) {}, false, false, false, false},
	} {
		for how, counts := range map[Reading]bool{Whole: c.whole, Ordered: c.ordered, Copied: c.copied} {
			if c.flushes && how == Copied {
				continue // it waits: see below
			}
			f := d.passed(fmt.Sprint(c.name, how), os.O_RDWR)
			if strings.HasPrefix(c.name, "open ") {
				_, err := d.Open(ctx, f.Ino(), os.O_WRONLY|os.O_SYNC)
				must(t, err)
			}
			b, err := d.readDuring(w, f.Ino(), how, func() {
				if c.name != "nothing" {
					writeAlone(t, f, []byte("log"), 19999)
				}
				c.do(d, f)
			})
			if counts && err != nil || !counts && !errors.Is(err, ErrMoving) {
				t.Errorf("%s, reading %d: %v", c.name, how, err)
			}
			if counts && len(b) != 20000 {
				t.Errorf("%s, reading %d: %d bytes", c.name, how, len(b))
			}
			_, err = d.readDuring(w, f.Ino(), how, func() {})
			if atRest := how != Copied || c.copied; atRest != (err == nil) && c.name != "cut short" {
				t.Errorf("%s, reading %d when it is at rest: %v", c.name, how, err)
			}
			f.Release()
		}
	}
}

// Of a large file no more is read when what was read counts for nothing.
func TestReadingInVain(t *testing.T) {
	d, _, _ := newWatched(t)
	defer d.st.Close()
	f := d.passed("f", os.O_WRONLY)
	defer f.Release()
	cf := d.openCut(f.Ino())
	read := func() error { return cf.ReadAt(ctx, make([]byte, 100), 0) }
	must(t, read())
	writeAlone(t, f, []byte("moves"), 10_000)
	if err := read(); !errors.Is(err, ErrMoving) {
		t.Errorf("it was written: %v", err)
	}
}

// A file that was taken while it was written is not clean, also when it is not
// written any more from then on.
func TestTakenWhileItIsWritten(t *testing.T) {
	for _, how := range []Reading{Ordered, Copied} {
		d, c, w := newWatched(t)
		f := d.passed("f", os.O_WRONLY)
		do := func(int64) { writeAlone(t, f, []byte("late"), 0) }
		w.reading.Store(&do)
		c.takeBy(t, d, how, f.Ino())
		if w.reading.Load() != nil {
			t.Fatal("nothing was read")
		}
		if how == Copied {
			do(0)
		}
		f.Release()
		if !d.isDirty(f.Ino()) {
			t.Errorf("reading %d: it counts as clean", how)
		}
		cf := d.openCut(f.Ino())
		got := make([]byte, 4)
		if must(t, cf.ReadAt(ctx, got, 0)); string(got) != "late" {
			t.Errorf("reading %d: the next commit reads %q", how, got)
		}
		cf.c.Close()
		must(t, d.st.Close())
	}
}

// Whoever asks for a flush waits until the file is copied, but not for long. What is
// written then is not in the copy; if somebody did not wait, there is none.
func TestFlushWaitsForACopy(t *testing.T) {
	for name, c := range map[string]struct {
		wait   time.Duration // that copying takes
		cancel bool          // who asks does not wait
		err    error
	}{
		"soon": {0, false, nil}, "late": {flushDelay + time.Second, false, ErrMoving}, "interrupted": {0, true, ErrMoving},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { flushWaits(t, c.wait, c.cancel, c.err) })
		})
	}
}

func flushWaits(t *testing.T, wait time.Duration, interrupt bool, want error) {
	d, _, w := newWatched(t)
	defer func() {
		must(t, d.st.Close())
		time.Sleep(time.Minute) // leveldb's last goroutine ends
	}()
	f := d.passed("f", os.O_WRONLY)
	defer f.Release()
	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	var flushed atomic.Bool
	b, err := d.readDuring(w, f.Ino(), Copied, func() {
		go func() {
			must(t, f.Sync(asking, true))
			writeAlone(t, f, []byte("after"), 0)
			flushed.Store(true)
		}()
		if synctest.Wait(); flushed.Load() {
			t.Error("the flush did not wait")
		}
		if interrupt {
			cancel()
		}
		time.Sleep(wait)
		synctest.Wait()
	})
	synctest.Wait()
	if !errors.Is(err, want) || !flushed.Load() {
		t.Errorf("it was read: %v; flushed: %v", err, flushed.Load())
	}
	if err == nil && !bytes.Equal(b, make([]byte, 20000)) {
		t.Errorf("the copy begins with %q", b[:5])
	}
	if wait == 0 {
		return
	}
	copies := 0
	for _, rest := range []time.Duration{0, copyRest} {
		time.Sleep(rest)
		if _, err := d.readDuring(w, f.Ino(), Copied, func() { copies++ }); (err != nil) != (rest == 0) {
			t.Errorf("%v after it took too long: %v", rest, err)
		}
	}
	if copies != 1 {
		t.Errorf("copied %d times since", copies)
	}
}

// A copy counts as content that is here until it was read.
func TestCopyCounts(t *testing.T) {
	d, _, _ := newWatched(t)
	defer d.st.Close()
	f := d.passed("f", os.O_WRONLY)
	defer f.Release()
	d.CountPassed()
	d.rest()
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(f.Ino())
	must(t, err)
	before, _ := d.Local()
	cf, err := cut.OpenFile(ctx, in, Copied)
	must(t, err)
	if n, _ := d.Local(); before == 0 || n != 2*before {
		t.Errorf("%d bytes are here with the copy, %d before", n, before)
	}
	cf.Close()
	if n, _ := d.Local(); n != before {
		t.Errorf("%d bytes are here after the copy, %d before", n, before)
	}
}

// A commit follows when the kernel has written a file alone.
func TestWrittenAloneIsChanged(t *testing.T) {
	needsFineTimes(t)
	synctest.Test(t, func(t *testing.T) {
		var changes atomic.Int64
		d, _ := runningDevice(t, Options{Passthrough: true, Changed: func() { changes.Add(1) }})
		f := d.passed("f", os.O_WRONLY)
		defer f.Release()
		for range 3 {
			time.Sleep(time.Minute)
			before := changes.Load()
			time.Sleep(time.Minute)
			if n := changes.Load() - before; n != 0 {
				t.Errorf("%d changes without a write", n)
			}
			writeAlone(t, f, []byte("log"), 7)
			time.Sleep(2 * flushEvery)
			if changes.Load() == before {
				t.Error("the kernel wrote, and nothing changed")
			}
		}
	})
}

// A file that is written in place, and alone because somebody read it, is taken as it
// was at the cut, with all that belongs to it, or not at all.
func TestJoinedReadings(t *testing.T) {
	for _, appended := range []bool{false, true} {
		t.Run(fmt.Sprint("appended to ", appended), func(t *testing.T) { testJoinedReadings(t, appended) })
	}
}

func testJoinedReadings(t *testing.T, appended bool) {
	d, _, w := newWatched(t)
	defer d.st.Close()
	want := pattern(100_000, 1)
	ino := d.write(Root, "database", want)
	r, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer r.Release()
	if appended {
		a, err := d.Open(ctx, ino, os.O_WRONLY|os.O_APPEND)
		must(t, err)
		defer a.Release()
	}
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	nothing, write := func() {}, func() { writeAlone(t, f, []byte("checkpoint"), 4096) }
	writeAlone(t, f, []byte("first"), 0)
	copy(want, "first")

	if got, err := d.readAfter(w, ino, Whole, nothing, nothing); err != nil || !bytes.Equal(got, want) {
		t.Errorf("at rest since the cut: %v", err)
	}
	for _, how := range []Reading{Whole, Ordered, Copied} {
		if _, err := d.readAfter(w, ino, how, write, nothing); !errors.Is(err, ErrMoving) {
			t.Errorf("written after the cut, reading %v: %v", how, err)
		}
		if _, err := d.readAfter(w, ino, how, nothing, write); !errors.Is(err, ErrMoving) {
			t.Errorf("written while it is read, reading %v: %v", how, err)
		}
	}
}

// A log that is appended to, and alone because somebody reads it, is written nowhere else:
// its beginning is taken while it grows.
func TestAppendedBesideAReader(t *testing.T) {
	d, _, w := newWatched(t)
	defer d.st.Close()
	want := pattern(100_000, 1)
	ino := d.write(Root, "log", want)
	r, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer r.Release()
	f, err := d.Open(ctx, ino, os.O_WRONLY|os.O_APPEND)
	must(t, err)
	defer f.Release()
	end := int64(len(want))
	grow := func() { writeAlone(t, f, []byte("line"), end); end += 4 }
	got, err := d.readAfter(w, ino, Ordered, grow, grow)
	if err != nil || !bytes.Equal(got, append(want, "line"...)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// For how long a file is not copied goes by the tree's clock.
func TestSlowByTheTreesClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Unix(1000, 0)
		d := &Tree{opt: Options{Now: func() time.Time { return now }}}
		in := &inode{}
		resume := in.delayFlushes()
		in.mu.Lock()
		d.ordered(ctx, in)
		in.mu.Unlock()
		resume()
		for _, after := range []time.Duration{copyRest - 1, 1} {
			if !d.isSlow(in) {
				t.Error("it is to be copied too soon")
			}
			now = now.Add(after)
		}
		if d.isSlow(in) {
			t.Error("it is not to be copied any more")
		}
	})
}
