package tree

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
)

// What a commit is still to read is set aside in steps when much of it is overwritten at
// once, and nobody who wants the file waits for longer than one.
func TestPreserveAhead(t *testing.T) {
	for name, overwrite := range map[string]func(d *device, f *File) error{
		"truncated": func(d *device, f *File) error {
			size := int64(1000)
			_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size, File: f})
			return err
		},
		"punched": func(_ *device, f *File) error {
			return f.Allocate(ctx, 1000, 1<<30, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, Options{})
			defer d.Close()
			want := pattern(2*preserveStep+5000, 1)
			ino := d.write(Root, "f", want)
			f, err := d.Open(ctx, ino, os.O_RDWR)
			must(t, err)
			defer f.Release()
			cf := d.openCut(ino)
			from, to := int64(1000), int64(len(want))
			for step := int64(1); step <= 3; step++ {
				more, err := d.preserveSome(f.in, from, to)
				if err != nil || !more {
					t.Fatalf("step %d: another %v, %v", step, more, err)
				}
				if !f.in.mu.TryLock() {
					t.Fatal("nobody can have the file")
				}
				n := f.in.frozen.have.Bytes()
				f.in.mu.Unlock()
				if n != min(step*preserveStep, to-from) {
					t.Errorf("%d bytes are set aside after %d steps", n, step)
				}
			}
			if more, err := d.preserveSome(f.in, from, to); more || err != nil {
				t.Errorf("when all is set aside: another %v, %v", more, err)
			}
			must(t, overwrite(d, f))
			got := make([]byte, len(want))
			if must(t, cf.ReadAt(ctx, got, 0)); !bytes.Equal(got, want) {
				t.Error("the commit reads another content")
			}
		})
	}
}

// So it is where the kernel is about to write all of a file alone that others read.
func TestPreserveWhatIsPassed(t *testing.T) {
	d, _, w := newWatched(t)
	defer d.st.Close()
	want := pattern(2*preserveStep, 1)
	ino := d.write(Root, "f", want)
	r, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer r.Release()
	cf := d.openCut(ino)
	done := int64(-1)
	var look func(off int64)
	look = func(off int64) { // who reads has the lock
		if off < preserveStep {
			w.reading.Store(&look)
			return
		}
		done = r.in.frozen.have.Bytes()
	}
	w.reading.Store(&look)
	f, err := d.Open(ctx, ino, os.O_WRONLY)
	must(t, err)
	defer f.Release()
	if done != preserveStep {
		t.Errorf("%d bytes are set aside before the second step", done)
	}
	writeAlone(t, f, []byte("new"), 0)
	got := make([]byte, len(want))
	if must(t, cf.ReadAt(ctx, got, 0)); !bytes.Equal(got, want) {
		t.Error("the commit reads another content")
	}
}

// A truncation sets aside by itself what it takes away, however much.
func TestTruncateMuch(t *testing.T) {
	d := newDevice(t, Options{})
	defer d.Close()
	want := pattern(2*preserveStep+5000, 1)
	ino := d.write(Root, "f", want)
	cf := d.openCut(ino)
	size := int64(1 << 20)
	_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size})
	must(t, err)
	got := make([]byte, len(want))
	if must(t, cf.ReadAt(ctx, got, 0)); !bytes.Equal(got, want) {
		t.Error("the commit reads another content")
	}
	if got := d.read(ino); !bytes.Equal(got, want[:size]) {
		t.Errorf("%d bytes are left", len(got))
	}
	if n, w := d.opens(ino); n != 0 || w != 0 {
		t.Errorf("%d handles", n)
	}
}

// What a commit is still to read is not overwritten while it cannot be set aside, as too
// many files are open.
func TestCannotBeSetAside(t *testing.T) {
	d, _, s := newSpoilt(t, Options{})
	want := pattern(100_000, 1)
	ino := d.write(Root, "f", want)
	cf := d.openCut(ino)
	size := int64(90_000)
	s.unopened.Store(d.numberOf(ino))
	if _, err := d.SetAttr(ctx, ino, SetAttr{Size: &size}); !errors.Is(err, unix.EMFILE) {
		t.Fatalf("cut short: %v", err)
	}
	s.unopened.Store(0)
	f, err := d.Open(ctx, ino, os.O_RDWR)
	must(t, err)
	defer f.Release()
	writeAt(t, f, []byte("later"), 0)
	got := make([]byte, cf.Size)
	if err := cf.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the commit has what was written after it, %v", err)
	}
}

// Who is killed while much is set aside for a commit does not wait for the rest of it.
func TestKilledWhileMuchIsSetAside(t *testing.T) {
	d := newDevice(t, Options{})
	want := pattern(5*preserveStep, 1)
	f := d.create(Root, "f")
	defer f.Release()
	writeAt(t, f, want, 0)
	cf := d.openCut(f.Ino())
	killed, kill := context.WithCancel(ctx)
	kill()
	if err := f.Allocate(killed, 0, 4*preserveStep, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE); !errors.Is(err, context.Canceled) {
		t.Errorf("punched: %v", err)
	}
	size := int64(10)
	if _, err := d.SetAttr(killed, f.Ino(), SetAttr{Size: &size}); !errors.Is(err, context.Canceled) {
		t.Errorf("cut short: %v", err)
	}
	if got := d.read(f.Ino()); !bytes.Equal(got, want) {
		t.Error("it was changed all the same")
	}
	_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size})
	must(t, err)
	got := make([]byte, cf.Size)
	if err := cf.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the commit reads another content, %v", err)
	}
}

// What is set aside counts as content that is here until the commit has read it, or ends.
func TestSetAsideCounts(t *testing.T) {
	for _, taken := range []bool{true, false} {
		d := newDevice(t, Options{})
		want := pattern(1<<20, 1)
		ino := d.write(Root, "f", want)
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		before, _ := d.Local()
		cut, err := d.Cut()
		must(t, err)
		in, _, err := cut.Inode(ino)
		must(t, err)
		cf, err := cut.OpenFile(ctx, in, Whole)
		must(t, err)
		for range 2 {
			writeAt(t, f, pattern(1<<19, 2), 0)
			if n, _ := d.Local(); n-before != 1<<19 {
				t.Errorf("%d bytes count for what was set aside", n-before)
			}
		}
		if taken {
			must(t, cf.Taken())
		} else {
			cf.Close()
			cut.Close()
		}
		if n, _ := d.Local(); n != before {
			t.Errorf("taken %v: %d bytes are here, %d before", taken, n, before)
		}
		if taken {
			cf.Close()
			cut.Close()
		}
		f.Release()
	}
}

// opening is a disk that calls then, once, before a backing file is opened.
type opening struct {
	disk.FS
	then func()
}

func (d *opening) Open(name string, flags int) (disk.File, error) {
	if then := d.then; then != nil && strings.HasPrefix(filepath.Base(filepath.Dir(name)), "0") {
		d.then = nil
		then()
	}
	return d.FS.Open(name, flags)
}

// Nothing stays set aside of a file of which that was about to be when the commit ended:
// the next one takes it as it is then.
func TestCommitEndsWhileAFileIsSetAside(t *testing.T) {
	fs := &opening{FS: disk.Local}
	d, c := deviceOn(t, fs)
	ino := d.write(Root, "f", pattern(100_000, 1))
	c.take(t, d, ino)
	write := func(content []byte) {
		f, err := d.Open(ctx, ino, os.O_RDWR)
		must(t, err)
		writeAt(t, f, content, 0)
		f.Release()
	}
	write(pattern(50_000, 2))
	d.rest()
	cut, err := d.Cut() // of a commit that fails
	must(t, err)
	in, _ := d.inodes.find(ino)
	defer d.release(in)
	fs.then = cut.Close
	size := int64(90_000)
	_, err = d.SetAttr(ctx, ino, SetAttr{Size: &size})
	must(t, err)
	if fs.then != nil {
		t.Fatal("the backing file was not opened")
	}
	if in.frozen != nil || in.before != nil {
		t.Error("it is still set aside")
	}
	write(pattern(40_000, 3))
	cf := d.openCut(ino)
	got := make([]byte, cf.Size)
	if must(t, cf.ReadAt(ctx, got, 0)); !bytes.Equal(got, d.read(ino)) {
		t.Error("the next commit takes another content")
	}
}
