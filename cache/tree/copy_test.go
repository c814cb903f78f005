package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"
)

// A copy of what is not here costs nothing, reads the same, and goes its own way.
func TestCopyOfWhatIsNotHere(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	want := pattern(3<<20+5, 1)
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)
	open := func(ino Ino, flags int) *File {
		t.Helper()
		f, err := d.Open(ctx, ino, flags)
		must(t, err)
		return f
	}
	create := func(name string) *File {
		t.Helper()
		f, _, err := d.Create(ctx, Root, name, 0o4755, os.O_RDWR, Owner{})
		must(t, err)
		return f
	}
	src, dst := open(ino, os.O_RDONLY), create("copy")
	if _, err := dst.CopyWhole(src, MaxSize, true); !errors.Is(err, ErrUnsupported) {
		t.Errorf("copied what is here: %v", err)
	}
	src.Release()
	evict(t, d, ino)
	src = open(ino, os.O_RDONLY)
	if _, err := dst.CopyWhole(src, int64(len(want))-1, true); !errors.Is(err, ErrUnsupported) {
		t.Errorf("copied more than was asked for: %v", err)
	}
	reads := c.hasRead()
	n, err := dst.CopyWhole(src, int64(len(want)), true)
	if err != nil || n != int64(len(want)) || c.hasRead() != reads {
		t.Fatalf("copied %d bytes, %d reads: %v", n, c.hasRead()-reads, err)
	}
	if a := attr(t, d, dst.Ino()); a.Size != n || a.Mode&0o4000 != 0 {
		t.Errorf("the copy has %d bytes and mode %o", a.Size, a.Mode)
	}
	if _, err := dst.CopyWhole(src, MaxSize, true); !errors.Is(err, ErrUnsupported) {
		t.Errorf("copied over content: %v", err)
	}
	// Both are written, each its own way; also after a crash.
	copied := bytes.Clone(want)
	_, err = dst.WriteAt(ctx, []byte("copy"), 1<<20, false)
	must(t, err)
	copy(copied[1<<20:], "copy")
	dst.Release()
	src.Release()
	d.restart()
	if !bytes.Equal(d.read(dst.Ino()), copied) {
		t.Error("the copy reads otherwise")
	}
	if !bytes.Equal(d.read(ino), want) {
		t.Error("the original reads otherwise")
	}
}

// What a commit under way may still change is not referred to.
func TestCopyDuringACommit(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	ino := c.gone(t, d, pattern(3<<20, 1))
	src, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer src.Release()
	dst, _, err := d.Create(ctx, Root, "copy", 0o644, os.O_RDWR, Owner{})
	must(t, err)
	defer dst.Release()
	cut, err := d.Cut()
	must(t, err)
	if _, err := dst.CopyWhole(src, MaxSize, false); !errors.Is(err, ErrUnsupported) {
		t.Errorf("copied during a commit: %v", err)
	}
	cut.Close()
	if _, err := dst.CopyWhole(src, MaxSize, false); err != nil {
		t.Error(err)
	}
}

// Into a file that the kernel writes alone nothing is copied by reference: it would go
// on reading and writing there, of what is not there.
func TestCopyIntoAPassedFile(t *testing.T) {
	d, c := evictingDevice(t, Options{Passthrough: true})
	want := pattern(3<<20, 1)
	ino := c.gone(t, d, want)
	src, err := d.Open(ctx, ino, os.O_RDONLY)
	must(t, err)
	defer src.Release()
	for _, passed := range []bool{true, false} {
		flags := os.O_WRONLY | os.O_EXCL // as cp makes it
		if !passed {
			flags |= os.O_APPEND
		}
		dst, _, err := d.Create(ctx, Root, fmt.Sprint(passed), 0o644, flags, Owner{})
		must(t, err)
		if _, ok := dst.Passthrough(); ok != passed {
			t.Fatalf("passed through: %v", ok)
		}
		reads := c.hasRead()
		n, err := dst.CopyWhole(src, MaxSize, false)
		if passed != errors.Is(err, ErrUnsupported) || !passed && n != int64(len(want)) || c.hasRead() != reads {
			t.Errorf("passed through: %v: copied %d bytes, with %d reads: %v", passed, n, c.hasRead()-reads, err)
		}
		dst.Release()
		if got := d.read(dst.Ino()); passed != (len(got) == 0) || !passed && !bytes.Equal(got, want) {
			t.Errorf("passed through: %v: it has %d bytes", passed, len(got))
		}
	}
}
