package tree

import (
	"bytes"
	"os"
	"testing"

	"golang.org/x/sys/unix"
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
