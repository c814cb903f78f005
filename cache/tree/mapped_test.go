package tree

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/backing"
	"skep/cache/disk"
	"skep/cache/state"
)

// passed makes a file that the kernel is to write alone, with some content.
func (d *device) passed(name string, flags int) *File {
	d.t.Helper()
	f, _, err := d.Create(ctx, Root, name, 0o644, flags|os.O_TRUNC, Owner{})
	must(d.t, err)
	fd, ok := f.Passthrough()
	if !ok {
		d.t.Fatal("it is not passed through")
	}
	_, err = unix.Pwrite(fd, make([]byte, 20000), 0)
	must(d.t, err)
	return f
}

// mapAll maps what the kernel would for a program: the backing file. It is unmapped by
// what is returned, at the latest at the end of the test.
func (d *device) mapAll(f *File) (pages []byte, unmap func()) {
	d.t.Helper()
	fd, _ := f.Passthrough()
	other, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDWR, 0)
	must(d.t, err)
	defer other.Close()
	pages, err = unix.Mmap(int(other.Fd()), 0, 20000, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(d.t, err)
	unmap = func() {
		if pages != nil {
			must(d.t, unix.Munmap(pages))
		}
		pages = nil
	}
	d.t.Cleanup(unmap)
	return pages, unmap
}

func (d *device) opens(ino Ino) (opens, writers int) {
	in, _ := d.inodes.find(ino)
	if in == nil {
		return 0, 0
	}
	defer d.release(in)
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.opens, in.writers
}

// closes waits until nobody has a file open.
func (d *device) closes(ino Ino) {
	d.t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		n, _ := d.opens(ino)
		if n == 0 {
			return
		}
		if time.Now().After(end) {
			d.t.Fatalf("%d handles are open", n)
		}
	}
}

// byteOf is one byte of a file.
func (d *device) byteOf(ino Ino, off int64) byte {
	d.t.Helper()
	f, err := d.Open(ctx, ino, os.O_RDONLY)
	must(d.t, err)
	defer f.Release()
	var b [1]byte
	_, err = f.ReadAt(ctx, b[:], off)
	must(d.t, err)
	return b[0]
}

// A file is open as long as it is mapped, for writing if one of the handles was that it
// can have been mapped with; and no longer. Its content is not let go of meanwhile.
func TestMapped(t *testing.T) {
	for _, c := range []struct {
		name    string
		more    []int // other handles, which are released before
		writers int
	}{
		{"one handle", nil, 1}, {"and a reader", []int{os.O_RDONLY}, 1}, {"and a writer", []int{os.O_WRONLY, os.O_RDWR}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := newDevice(t, Options{Passthrough: true})
			defer d.Close()
			f := d.passed("f", os.O_RDWR)
			ino := f.Ino()
			pages, unmap := d.mapAll(f)
			for _, flags := range c.more {
				o, err := d.Open(ctx, ino, flags)
				must(t, err)
				o.Release()
			}
			f.Release()
			pages[7] = 'x'
			if n, w := d.opens(ino); n != 1 || w != c.writers {
				t.Errorf("mapped: %d handles, %d for writing", n, w)
			}
			if a, err := d.Attr(ctx, ino); err != nil || !a.Mapped || a.Size != 20000 {
				t.Errorf("mapped: %+v, %v", a, err)
			}
			if b := d.byteOf(ino, 7); b != 'x' {
				t.Errorf("read %q", b)
			}
			if n, w := d.opens(ino); n != 1 || w != c.writers {
				t.Errorf("after it was opened again: %d handles, %d for writing", n, w)
			}
			unmap()
			d.closes(ino)
			if a, err := d.Attr(ctx, ino); err != nil || a.Mapped {
				t.Errorf("not mapped any more: %+v, %v", a, err)
			}
			if b := d.byteOf(ino, 7); b != 'x' {
				t.Errorf("in the end read %q", b)
			}
		})
	}
}

// What cannot be mapped is not looked after, and a reader's mapping stores nothing.
func TestMappedOtherwise(t *testing.T) {
	d := newDevice(t, Options{Passthrough: true})
	defer d.Close()
	w := d.passed("w", os.O_WRONLY)
	d.mapAll(w)
	w.Release()
	if n, _ := d.opens(w.Ino()); n != 0 {
		t.Errorf("for writing only: %d handles", n)
	}
	f := d.passed("f", os.O_RDWR)
	f.Release()
	if n, _ := d.opens(f.Ino()); n != 0 {
		t.Errorf("not mapped: %d handles", n)
	}
	r, err := d.Open(ctx, f.Ino(), os.O_RDONLY)
	must(t, err)
	d.mapAll(r)
	r.Release()
	a, err := d.Attr(ctx, f.Ino())
	if n, w := d.opens(f.Ino()); n != 1 || w != 0 || err != nil || a.Mapped {
		t.Errorf("of a reader: %d handles, %d for writing, %+v, %v", n, w, a, err)
	}
}

// A mount that is taken away by force leaves programs with descriptors by which they go on
// writing to what is passed through, for writing alone, too: the file counts as open until
// they close them.
func TestAbandoned(t *testing.T) {
	d, c := evictingDevice(t, Options{Passthrough: true})
	defer d.Close()
	f := d.passed("f", os.O_WRONLY)
	ino, size := f.Ino(), int64(100)
	_, err := d.SetAttr(ctx, ino, SetAttr{Size: &size, File: f}) // small enough for a row
	must(t, err)
	fd, _ := f.Passthrough()
	program, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_WRONLY, 0)
	must(t, err)
	f.Abandon()
	_, err = program.WriteAt([]byte("late"), size)
	must(t, err)
	c.take(t, d, ino)
	if n := evict(t, d, ino); n != 0 {
		t.Errorf("%d bytes let go of", n)
	}
	must(t, program.Close())
	d.closes(ino)
	if got := d.read(ino); !bytes.HasSuffix(got, []byte("late")) || len(got) != 104 {
		t.Errorf("%d bytes, in the end %q", len(got), got[max(0, len(got)-4):])
	}
	unused := d.passed("unused", os.O_WRONLY)
	unused.Abandon()
	if n, _ := d.opens(unused.Ino()); n != 0 {
		t.Errorf("%d handles of what nobody has", n)
	}
}

// What is stored by mappings can be in what Seek calls a hole if all of a file is here,
// and somebody has it open to store.
func TestStorable(t *testing.T) {
	d, c := evictingDevice(t, Options{})
	defer d.Close()
	ino := d.write(Root, "f", pattern(3<<20, 1))
	open := func(flags int) *File {
		f, err := d.Open(ctx, ino, flags)
		must(t, err)
		t.Cleanup(f.Release)
		return f
	}
	r := open(os.O_RDONLY)
	if r.Storable() {
		t.Error("of readers alone")
	}
	w := open(os.O_RDWR)
	if !r.Storable() {
		t.Error("not though somebody may store")
	}
	c.take(t, d, ino)
	if n, err := d.Evict(ctx, ino, true); n == 0 || err != nil {
		t.Fatalf("%d bytes let go of, %v", n, err)
	}
	if hole, err := w.Seek(ctx, 0, unix.SEEK_HOLE); w.Storable() || hole != 3<<20 || err != nil {
		t.Errorf("of what is not here: %v; a hole at %d, %v", w.Storable(), hole, err)
	}
	must(t, errors.Join(d.Fetch(ctx, ino), d.Sync()))
	if !w.Storable() {
		t.Error("not when all is here again")
	}
}

// A file that was deleted while it was mapped ends with its mapping, if the kernel has
// forgotten it by then, and else when it does.
func TestMappedAndDeleted(t *testing.T) {
	for _, early := range []bool{true, false} {
		d := newDevice(t, Options{Passthrough: true})
		f := d.passed("f", os.O_RDWR)
		ino := f.Ino()
		_, unmap := d.mapAll(f)
		f.Release()
		must(t, d.Unlink(ctx, Root, "f"))
		if early {
			d.Forget(ino)
		}
		if _, err := d.Attr(ctx, ino); err != nil {
			t.Errorf("while it is mapped: %v", err)
		}
		unmap()
		d.closes(ino)
		if !early {
			if _, err := d.Attr(ctx, ino); err != nil {
				t.Errorf("before it is forgotten: %v", err)
			}
			d.Forget(ino)
		}
		for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			if _, err := d.Attr(ctx, ino); isStale(err) {
				break
			}
			if time.Now().After(end) {
				t.Fatal("it is still there")
			}
		}
		d.Close()
	}
}

// openedOnce opens a backing file once only.
type openedOnce struct {
	disk.FS
	number uint64
	opened int
}

func (d *openedOnce) Open(name string, flags int) (disk.File, error) {
	if isNumber(name, d.number) {
		if d.opened++; d.opened > 1 {
			return nil, unix.EMFILE
		}
	}
	return d.FS.Open(name, flags)
}

// Where too many files are open to tell who still has one of the mount before, the
// drive is not opened.
func TestMappedBeyondTheEndNotKnown(t *testing.T) {
	d := newDevice(t, Options{Passthrough: true})
	f := d.passed("f", os.O_RDWR)
	d.mapAll(f)
	number := d.numberOf(f.Ino())
	must(t, d.st.Close())
	few := &openedOnce{FS: disk.Local, number: number}
	st, err := state.OpenWith(filepath.Join(d.dir, "state"), state.Options{})
	must(t, err)
	defer st.Close()
	files, err := backing.OpenOn(few, filepath.Join(d.dir, "files"))
	must(t, err)
	_, err = Open(Options{State: st, Backing: files, Device: 1, Passthrough: true})
	if !errors.Is(err, unix.EMFILE) || few.opened != 2 {
		t.Errorf("opened %d times: %v", few.opened, err)
	}
}

// What a program stores after the daemon was killed is in the file, also for the next
// daemon, and a commit takes it; so it is when that one ends in order.
func TestMappedBeyondTheEnd(t *testing.T) {
	for _, inOrder := range []bool{false, true} {
		d, c := evictingDevice(t, Options{Passthrough: true})
		f := d.passed("f", os.O_RDWR)
		ino := f.Ino()
		pages, unmap := d.mapAll(f)
		if f.Release(); inOrder {
			d.Close()
		}
		pages[7] = 'x'
		before := d.Tree
		d.restart()
		before.cancel() // its process has ended
		before.background.Wait()
		in, _ := before.inodes.find(ino)
		must(t, in.file.Close())
		if n, w := d.opens(ino); n != 1 || w != 1 {
			t.Fatalf("%d handles, %d for writing", n, w)
		}
		c.take(t, d, ino)
		pages[8] = 'y'
		if n := evict(t, d, ino); n != 0 {
			t.Errorf("%d bytes are gone, of a file that is mapped", n)
		}
		if a, b := d.byteOf(ino, 7), d.byteOf(ino, 8); a != 'x' || b != 'y' {
			t.Errorf("read %q and %q", a, b)
		}
		unmap()
		d.closes(ino)
		c.take(t, d, ino)
		if n := evict(t, d, ino); n == 0 {
			t.Error("nothing is gone, though nobody has it any more")
		}
		if a, b := d.byteOf(ino, 7), d.byteOf(ino, 8); a != 'x' || b != 'y' {
			t.Errorf("of the commit read %q and %q", a, b)
		}
		d.Close()
	}
}
