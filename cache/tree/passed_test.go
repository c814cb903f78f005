package tree

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"skep/cache/disk"
	"skep/chunker/dag"
	"skep/chunker/link"
)

// writeAlone writes to a file as the kernel does that was given its backing file.
func writeAlone(t *testing.T, f *File, p []byte, off int64) {
	t.Helper()
	fd, ok := f.Passthrough()
	if !ok {
		t.Fatal("the kernel does not write alone")
	}
	if n, err := unix.Pwrite(fd, p, off); err != nil || n != len(p) {
		t.Fatalf("%d, %v", n, err)
	}
}

// rest returns when what was written before counts as at rest: at once, or a moment later
// where the times of the local filesystem are coarse.
func (d *device) rest() {
	st := unix.Stat_t{Ctim: unix.NsecToTimespec(time.Now().UnixNano())}
	for !d.atRest(st) {
		time.Sleep(time.Millisecond)
	}
}

// needsFineTimes skips a test in which no file ever is at rest by a clock that is made up.
func needsFineTimes(t *testing.T) {
	if !newDevice(t, Options{}).fineTimes() {
		t.Skip("the times of the local filesystem are coarse: needs Linux 6.13")
	}
}

// A file of which a part was changed through the daemon, and then any part by the
// kernel alone, has changed everywhere as far as is known, also when the inode came
// from the tables again.
func TestWrittenBothWays(t *testing.T) {
	d, c := evictingDevice(t, Options{Passthrough: true})
	want := pattern(3*dag.ChunkSize, 1)
	ino := d.write(Root, "f", want)
	c.take(t, d, ino)

	f, err := d.Open(ctx, ino, os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	writeAt(t, f, []byte("daemon"), 0)
	copy(want, "daemon")
	f.Release()
	r, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if f, err = d.Open(ctx, ino, os.O_WRONLY); err != nil {
		t.Fatal(err)
	}
	writeAlone(t, f, []byte("kernel"), 2*dag.ChunkSize)
	copy(want[2*dag.ChunkSize:], "kernel")
	f.Release()
	r.Release()

	d.Close()
	d.restart()
	d.rest()
	cut, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	in, _, err := cut.Inode(ino)
	if err != nil || !in.Dirty {
		t.Fatal("it is not dirty", err)
	}
	cf, err := cut.OpenFile(ctx, in, Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer cf.Close()
	for _, at := range []int64{0, 2 * dag.ChunkSize} {
		changed := false
		for _, r := range cf.Changed() {
			changed = changed || r.From <= at && at < r.To
		}
		if !changed {
			t.Errorf("the chunk at %d does not count as changed", at)
		}
	}
	got := make([]byte, len(want))
	if err := cf.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Error("the content is another", err)
	}
}

// A program that opens a file at whatever moment of another's emptying it to write it anew
// has it passed through if that one has: the kernel goes by the first that it opens.
func TestOpenedWhileItIsEmptied(t *testing.T) {
	var meanwhile func()
	d := newDevice(t, Options{Passthrough: true, Changed: func() {
		if meanwhile != nil {
			meanwhile()
		}
	}})
	ino := d.write(Root, "f", pattern(20000, 1))
	in, _ := d.inodes.find(ino)
	defer d.release(in)
	var reader *File
	var fd int
	passed := false
	meanwhile = func() {
		if !in.mu.TryLock() {
			return // it is being emptied
		}
		ready := in.row.has(flagBacking) && in.row.size == 0
		in.mu.Unlock()
		if ready {
			meanwhile = nil
			var err error
			reader, err = d.Open(ctx, ino, os.O_RDONLY)
			must(t, err)
			fd, passed = reader.Passthrough()
		}
	}
	f, err := d.Open(ctx, ino, os.O_WRONLY|os.O_TRUNC)
	must(t, err)
	if reader == nil {
		t.Fatal("nobody opened it meanwhile")
	}
	if _, alone := f.Passthrough(); !passed || !alone {
		t.Errorf("the kernel reads it alone: %v, and writes it alone: %v", passed, alone)
	}
	want := pattern(30000, 2)
	_, err = unix.Pwrite(fd, want, 0)
	must(t, err)
	f.Release()
	reader.Release()
	if got := d.read(ino); !bytes.Equal(got, want) {
		t.Errorf("%d bytes are left of %d that were written", len(got), len(want))
	}
}

// A file that the kernel writes alone has changed everywhere as far as is known, also if
// the daemon changes a part of it while a commit is about to take it.
func TestChangedBothWaysDuringACut(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, d *device, f *File){
		"cut short": func(t *testing.T, d *device, f *File) {
			size := int64(3*dag.ChunkSize - 1)
			_, err := d.SetAttr(ctx, f.Ino(), SetAttr{Size: &size, File: f})
			must(t, err)
		},
		"made to grow": func(t *testing.T, d *device, f *File) {
			must(t, f.Allocate(ctx, 3*dag.ChunkSize, 1, 0))
		},
		"a hole in it": func(t *testing.T, d *device, f *File) {
			must(t, f.Allocate(ctx, 2*dag.ChunkSize, 4096, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE))
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDevice(t, Options{Passthrough: true})
			f := d.passed("f", os.O_WRONLY)
			ino := f.Ino()
			writeAlone(t, f, pattern(3*dag.ChunkSize, 1), 0)

			cut, err := d.Cut()
			must(t, err)
			change(t, d, f)
			in, _, err := cut.Inode(ino)
			must(t, err)
			cf, err := cut.OpenFile(ctx, in, Whole)
			must(t, err)
			must(t, errors.Join(cf.ReadAt(ctx, make([]byte, cf.Size), 0), cf.Taken()))
			done := []Settled{{Ino: ino, Content: link.Link{Codec: link.DagPB, Hash: link.Hash{1}}, Size: cf.Size}}
			cf.Close()
			must(t, errors.Join(cut.Settle(ctx, done), cut.ClearMarks(nil)))
			cut.Close()
			writeAlone(t, f, []byte("late"), 0)
			f.Release()

			next := d.openCut(ino)
			if c := next.Changed(); len(c) == 0 || c[0].From != 0 {
				t.Errorf("what the kernel wrote is not taken: %v", c)
			}
		})
	}
}

// A file that is dirty at a cut and that the kernel then begins to write alone is
// taken as it was.
func TestWrittenAloneDuringACut(t *testing.T) {
	d := newDevice(t, Options{Passthrough: true})
	want := pattern(3*dag.ChunkSize, 1)
	ino := d.write(Root, "f", want)
	r, err := d.Open(ctx, ino, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	cut, err := d.Cut()
	if err != nil {
		t.Fatal(err)
	}
	defer cut.Close()
	f, err := d.Open(ctx, ino, os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	writeAlone(t, f, []byte("kernel"), 2*dag.ChunkSize)
	in, _, err := cut.Inode(ino)
	if err != nil {
		t.Fatal(err)
	}
	cf, err := cut.OpenFile(ctx, in, Whole)
	if err != nil {
		t.Fatal(err)
	}
	defer cf.Close()
	got := make([]byte, len(want))
	if err := cf.ReadAt(ctx, got, 0); err != nil || !bytes.Equal(got, want) {
		t.Error("the content is not as of the cut", err)
	}
}

// A commit that took a file which the kernel writes alone, and failed, spares the
// next one nothing: it has to look whether the file moves while it reads it.
func TestPassedAfterACommitThatFailed(t *testing.T) {
	d := newDevice(t, Options{Passthrough: true})
	f, a, err := d.Create(ctx, Root, "image", 0o644, os.O_WRONLY|os.O_EXCL, Owner{})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Release()
	writeAlone(t, f, bytes.Repeat([]byte("A"), 2*dag.ChunkSize), 0)
	read := func(then func()) error {
		d.rest()
		cut, err := d.Cut()
		if err != nil {
			t.Fatal(err)
		}
		defer cut.Close() // and the commit failed
		in, ok, err := cut.Inode(a.Ino)
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		cf, err := cut.OpenFile(ctx, in, Whole)
		if err != nil {
			t.Fatal(err)
		}
		defer cf.Close()
		p := make([]byte, dag.ChunkSize)
		if err := cf.ReadAt(ctx, p, 0); err != nil {
			t.Fatal(err)
		}
		if err := cf.ReadAt(ctx, p, dag.ChunkSize); err != nil {
			t.Fatal(err)
		}
		then()
		return cf.Taken()
	}
	if err := read(func() {}); err != nil {
		t.Fatal(err)
	}
	err = read(func() { writeAlone(t, f, bytes.Repeat([]byte("B"), 2*dag.ChunkSize), 0) })
	if !errors.Is(err, ErrMoving) {
		t.Errorf("it was taken, though it was written meanwhile: %v", err)
	}
}

// A file may be written on, and closed, while a commit flushes it: what the commit saw
// before is not what it is.
func TestClosedWhileACommitFlushes(t *testing.T) {
	fs := &syncing{FS: disk.Local}
	d := &device{t: t, dir: t.TempDir(), fs: fs, opt: Options{Passthrough: true}}
	d.open()
	t.Cleanup(func() { _ = d.st.Close() })
	f := d.passed("f", os.O_WRONLY)
	cut, err := d.Cut()
	must(t, err)
	defer cut.Close()
	in, _, err := cut.Inode(f.Ino())
	must(t, err)
	fs.hook = func() {
		writeAlone(t, f, []byte("more"), 50_000)
		f.Release()
	}
	if c, err := cut.OpenFile(ctx, in, Whole); err == nil {
		c.Close()
	}
	if fs.hook != nil {
		t.Fatal("the file was not flushed")
	}
	if a, err := d.Attr(ctx, f.Ino()); err != nil || a.Size != 50_004 {
		t.Errorf("%d bytes, %v", a.Size, err)
	}
}

// syncing is a disk that calls hook once, before a file is flushed with its times.
type syncing struct {
	disk.FS
	hook func()
}

type syncingFile struct {
	disk.File
	fs *syncing
}

func (s *syncing) Open(name string, flags int) (disk.File, error) {
	f, err := s.FS.Open(name, flags)
	return syncingFile{f, s}, err
}

func (f syncingFile) Sync() error {
	if hook := f.fs.hook; hook != nil {
		f.fs.hook = nil
		hook()
	}
	return f.File.Sync()
}
